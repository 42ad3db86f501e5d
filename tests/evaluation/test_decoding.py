import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evaluation.config import EvaluateConfig, ViterbiConfig, WordSearchConfig
from evaluation.decoding import (
    by_time,
    choose_decoder,
    ctc_greedy,
    symbol_graph,
    symbol_search,
    symbol_weights,
    time_scale,
)
from evaluation.graph.search import GraphSearch
from featurize.stage import Location, PipelineError
from training.losses import greedy_ctc_labels
from training.trained_model import TrainedModel, load_model


def random_log_probs(seed: int, num_frames: int, num_outputs: int, sharpness: float = 1.5):
    rng = np.random.default_rng(seed)
    scores = sharpness * rng.normal(size=(num_frames, num_outputs))
    return (scores - np.log(np.exp(scores).sum(1, keepdims=True))).astype(np.float32)


def frames(*outputs, num_outputs=3):
    log_probs = np.full((len(outputs), num_outputs), -9.0, np.float32)
    log_probs[np.arange(len(outputs)), outputs] = -0.01
    return log_probs


def test_greedy_by_hand():
    # Blank is 2: a a - a b b - -> a a b
    assert ctc_greedy(frames(0, 0, 2, 0, 1, 1, 2)) == [0, 0, 1]
    assert ctc_greedy(frames(2, 2)) == []
    assert ctc_greedy(np.zeros((0, 3), np.float32)) == []


def test_repeats_collapse_and_blanks_go():
    best = np.array([2, 2, 1, 3, 1, 1, 3])
    assert ctc_greedy(np.eye(4, dtype=np.float32)[best]) == [2, 1, 1]
    assert ctc_greedy(np.zeros((0, 4), np.float32)) == []


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 9))
def test_greedy_is_what_training_measures(seed, num_frames, num_outputs):
    log_probs = random_log_probs(seed, num_frames, num_outputs)
    theirs = greedy_ctc_labels(torch.from_numpy(log_probs).unsqueeze(1), torch.tensor([num_frames]))
    assert [ctc_greedy(log_probs)] == theirs


@pytest.mark.parametrize(
    ("decoder", "objective", "chosen"),
    [
        ("auto", "ctc", "greedy"),
        ("auto", "frame", "viterbi"),
        ("viterbi", "ctc", "viterbi"),
        ("viterbi", "frame", "viterbi"),
        ("prefix", "ctc", "prefix"),
    ],
)
def test_choice_of_decoder(decoder, objective, chosen):
    assert choose_decoder(EvaluateConfig(decoder=decoder), objective, "m") == chosen


@pytest.mark.parametrize(("decoder", "objective"), [("greedy", "frame"), ("prefix", "frame")])
def test_unfit_decoder_is_refused(decoder, objective):
    with pytest.raises(PipelineError, match=r"decoder=.* does not fit"):
        choose_decoder(EvaluateConfig(decoder=decoder), objective, "m")


def test_a_search_needs_statistics(write_model):
    whole = load_model(write_model("gru", objective="frame"))
    for lacking in ({}, {"bigram_counts": whole.label_statistics["bigram_counts"]}):
        recogniser = TrainedModel(whole.network, whole.manifest, lacking)
        with pytest.raises(PipelineError, match="train it again"):
            symbol_search(recogniser, ViterbiConfig())


def test_a_graph_is_made_once_and_shared_by_models_of_the_same_outputs(write_model, tmp_path):
    runs = Location.of(tmp_path / "runs")
    first, second, other = (
        load_model(write_model(model, objective=objective))
        for model, objective in (("v2", "frame"), ("gru", "frame"), ("gru", "ctc"))
    )
    kept = symbol_graph(first, 0.5, runs)
    again = symbol_graph(second, 0.5, runs)
    assert again.location == kept.location
    assert again.manifest.created_at == kept.manifest.created_at
    assert symbol_graph(other, 0.5, runs).location != kept.location
    assert symbol_graph(first, 1.0, runs).location != kept.location
    log_probs = random_log_probs(3, 60, 3)
    weights = symbol_weights(ViterbiConfig(), "viterbi")
    made = symbol_search(first, ViterbiConfig())
    assert GraphSearch(again.graph, weights).find(log_probs) == made.find(log_probs)
    file = kept.location.child("graph.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(PipelineError, match="SHA-256 is not"):
        symbol_graph(first, 0.5, runs)


def test_weights_are_stated_for_frames_of_30_ms(write_model):
    def manifest(objective, frame_shift_s):
        trained = load_model(write_model("gru", objective=objective)).manifest
        return trained.model_copy(update={"frame_shift_s": frame_shift_s})

    stated = WordSearchConfig(lm_weight=0.5, word_score=-1.0, beam=13.0, prior_scale=0.5)
    assert by_time(stated, time_scale(manifest("frame", 0.03))) == stated
    assert by_time(stated, time_scale(manifest("ctc", 0.01))) == stated
    close = by_time(stated, time_scale(manifest("frame", 0.01)))
    assert close == stated.model_copy(update={"lm_weight": 1.5, "word_score": -3.0, "beam": 39.0})
    largest = by_time(WordSearchConfig(lm_weight=100.0, beam=1e4), 3.0)
    assert WordSearchConfig.model_validate(largest.model_dump()) == largest
    of_symbols = by_time(ViterbiConfig(insertion_penalty=2.0), 1.5)
    assert of_symbols == ViterbiConfig(bigram_weight=1.5, insertion_penalty=3.0, beam=18.0)
