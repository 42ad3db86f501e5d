from evaluation.training_summary import training_lines
from featurize.stage import read_manifest
from training.manifest import TrainManifest


def test_a_training_in_words(write_model):
    training = read_manifest(write_model("v2"), TrainManifest)
    assert training_lines(training) == [
        "The SNN v2 has 2 layers of 9 neurons and "
        f"{training.num_parameters:,} parameters; 4 epochs took 6 seconds.",
        "The lowest dev label error rate is 22.5%, after epoch 4; the weights of that epoch "
        "are kept.",
        "Share of neurons that fire in a frame then: encoder 20.0%, layer 1 30.0%, layer 2 10.0%.",
        "The last epoch was the best: longer training may help.",
    ]


def test_what_went_wrong_is_said_and_dense_models_have_no_spikes(write_model):
    training = read_manifest(write_model("gru"), TrainManifest)
    first, *others = training.metrics
    unlucky = training.model_copy(
        update={
            "best_epoch": 1,
            "metrics": (first.model_copy(update={"num_skipped_steps": 3}), *others),
        }
    )
    lines = training_lines(unlucky)
    assert lines[0].startswith("The GRU has 2 layers")
    assert lines[2:] == ["3 steps were skipped, their gradient was not finite."]
