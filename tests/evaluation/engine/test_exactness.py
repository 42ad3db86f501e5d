import pytest
import torch

from evaluation.config import EvaluateConfig
from evaluation.engine import exactness
from evaluation.engine.exactness import check_exactness
from evaluation.evaluate import evaluate
from featurize.config import FeaturizeConfig, SplitsConfig
from featurize.featurize import featurize
from featurize.schema import FeaturizeManifest
from featurize.stage import FanOut, Location, PipelineError, read_manifest
from training.align.states import phone_state_inventory

MODELS = ("conventional", "v1", "v2")


def features_of(root, runs, subset):
    config = FeaturizeConfig(
        splits=SplitsConfig(test=(subset,)), stack=3, stride=3, cmvn="global", labels="characters"
    )
    return featurize(config, Location.of(root), runs, fan_out=FanOut(kind="sequential")).location


@pytest.fixture
def spiking_on(write_model):
    """A model of random weights that reads a feature set."""

    def write(location, model, **sizes):
        manifest = read_manifest(location, FeaturizeManifest)
        return write_model(
            model,
            manifest.labels,
            num_features=manifest.num_features,
            cmvn=manifest.cmvn,
            frame_shift_s=manifest.frame_shift_s,
            **({"hidden_size": 48, "max_range": 2.0, "encoder_max_range": 4.0} | sizes),
        )

    return write


def check_all(location, spiking_on, **sizes):
    manifest = read_manifest(location, FeaturizeManifest)
    num_utterances = sum(shard.num_utterances for shard in manifest.shards)
    for model in MODELS:
        found = check_exactness(spiking_on(location, model, **sizes), location, num_onnx_frames=60)
        assert found.num_utterances == num_utterances > 0
        assert found.num_spikes > found.num_frames
        assert found.multiplications > 0
        assert found.is_exact, found
        assert found.onnx is None or found.onnx.largest_difference == 0.0


def test_every_utterance_of_a_synthetic_corpus_is_exact(synthetic_corpus, tmp_path, spiking_on):
    location = features_of(
        synthetic_corpus / "librispeech", Location.of(tmp_path / "runs"), "test-synthetic"
    )
    check_all(location, spiking_on)


def test_every_utterance_of_real_speech_is_exact(librispeech_root, tmp_path, spiking_on):
    """All of test-mini, or of test-clean where the corpus has no such subset."""
    names = [name for name in ("test-mini", "test-clean") if (librispeech_root / name).is_dir()]
    if not names:
        pytest.skip("LIBRISPEECH_ROOT has neither test-mini nor test-clean")
    location = features_of(librispeech_root, Location.of(tmp_path / "runs"), names[0])
    check_all(location, spiking_on, hidden_size=128)


def test_what_a_finished_evaluation_recorded_is_read(write_features, spiking_on, tmp_path):
    location = write_features()
    run = spiking_on(location, "v2")
    evaluation = evaluate(
        EvaluateConfig(time_curve=False), [run], location, Location.of(tmp_path / "runs")
    ).location
    found = check_exactness(run, location, evaluation=evaluation)
    assert found.is_exact
    assert found.num_recorded == found.num_utterances == 11


def test_a_model_of_states_is_exact_as_well(write_features, spiking_on):
    location = write_features()
    states = phone_state_inventory(3, 3)
    run = spiking_on(location, "v2", objective="frame", states=states)
    assert check_exactness(run, location).is_exact


def test_a_difference_is_found(write_features, spiking_on, monkeypatch):
    """The engine of a network whose weights moved since: everything that can differ does."""
    location = write_features()
    run = spiking_on(location, "v2")

    class Moved(exactness._Comparison):
        def add(self, recognition, x_TF, recorded):
            with torch.no_grad():
                self.recogniser.network.layers[0].input_map.weight.mul_(1.01)
            super().add(recognition, x_TF, recorded)

    monkeypatch.setattr(exactness, "_Comparison", Moved)
    found = check_exactness(run, location)
    assert not found.is_exact
    assert found.differing_outputs > 0
    assert found.differing_counts == {"float32": 11, "int8": 0}
    assert found.differing_records == 11
    assert found.largest_difference > 1e-4


def test_a_split_without_utterances_is_named(write_features, spiking_on):
    location = write_features()
    run = spiking_on(location, "v2")
    with pytest.raises(PipelineError, match="split=none has no subsets"):
        check_exactness(run, location, split="none")
