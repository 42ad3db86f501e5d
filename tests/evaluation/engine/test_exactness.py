"""The engine's spikes, scores and counts are the training-time model's, without exception.

``TRAINED_MODELS`` names finished training runs, separated by spaces, that are checked on the whole
test split of their own feature sets as well.
"""

import os

import pytest
import torch

from evaluation.config import EvaluateConfig
from evaluation.evaluate import evaluate
from featurize.featurize import featurize
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.schema import FeaturizeManifest
from featurize.stage import FanOut, Location, read_manifest
from tests.harness import exactness
from tests.harness.exactness import agreement
from training.align.states import phone_state_inventory
from training.manifest import TrainManifest

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
        found = agreement(spiking_on(location, model, **sizes), location)
        assert found.num_utterances == num_utterances > 0
        assert found.num_spikes > found.num_frames
        assert found.differing == {}


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


@pytest.mark.parametrize("run", os.environ.get("TRAINED_MODELS", "").split())
def test_a_trained_model_is_exact_on_its_test_speech(run):
    model = Location.of(run)
    found = agreement(model, Location.of(read_manifest(model, TrainManifest).features))
    assert found.num_utterances > 0
    assert found.differing == {}


def test_what_a_finished_evaluation_recorded_is_what_is_executed(
    write_features, spiking_on, tmp_path
):
    location = write_features()
    run = spiking_on(location, "v2")
    runs = Location.of(tmp_path / "runs")
    evaluation = evaluate(EvaluateConfig(), [run], location, runs).location
    found = agreement(run, location, evaluation=evaluation)
    assert found.differing == {}
    assert found.num_recorded == found.num_utterances == 11


def test_a_model_of_states_is_exact_as_well(write_features, spiking_on):
    location = write_features()
    states = phone_state_inventory(3, 3)
    run = spiking_on(location, "v2", objective="frame", states=states)
    assert agreement(run, location).differing == {}


def test_a_difference_is_found(write_features, spiking_on, monkeypatch):
    """A network whose weights move after its engines were built: all that can differ does."""
    location = write_features()
    run = spiking_on(location, "v2")

    def recognise_and_move(recogniser, batches, cmvn):
        for recognition in recognise(recogniser, batches, cmvn):
            with torch.no_grad():
                recogniser.network.layers[0].input_map.weight.mul_(1.01)
            yield recognition

    recognise = exactness.recognise
    monkeypatch.setattr(exactness, "recognise", recognise_and_move)
    differing = agreement(run, location).differing
    assert set(differing) == {"spikes", "log-probabilities", "float32 counts", "recorded counts"}
    assert len(differing["float32 counts"]) == 11
