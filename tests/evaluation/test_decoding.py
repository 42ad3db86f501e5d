import itertools
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.config import BeamConfig, EvaluateConfig
from evaluation.decoding import (
    CtcBeam,
    build_decoder,
    choose_decoder,
    collapse,
    ctc_greedy,
)
from featurize.stage import PipelineError
from training.losses import greedy_ctc_labels


def random_log_probs(seed: int, num_frames: int, num_outputs: int, sharpness: float = 1.5):
    rng = np.random.default_rng(seed)
    scores = sharpness * rng.normal(size=(num_frames, num_outputs))
    return (scores - np.log(np.exp(scores).sum(1, keepdims=True))).astype(np.float32)


def ctc_by_enumeration(log_probs):
    """Probability of every label sequence: the sum over all paths that spell it."""
    num_frames, num_outputs = log_probs.shape
    blank = num_outputs - 1
    totals = defaultdict(float)
    for path in itertools.product(range(num_outputs), repeat=num_frames):
        labels = tuple(key for key, _ in itertools.groupby(path) if key != blank)
        totals[labels] += np.exp(sum(log_probs[t, s] for t, s in enumerate(path)))
    return totals


def frames(*outputs, num_outputs=3):
    log_probs = np.full((len(outputs), num_outputs), -9.0, np.float32)
    log_probs[np.arange(len(outputs)), outputs] = -0.01
    return log_probs


def test_greedy_by_hand():
    # Blank is 2: a a - a b b - -> a a b
    assert ctc_greedy(frames(0, 0, 2, 0, 1, 1, 2)) == [0, 0, 1]
    assert ctc_greedy(frames(2, 2)) == []
    assert ctc_greedy(np.zeros((0, 3), np.float32)) == []


def test_collapse():
    assert collapse(np.array([3, 3, 1, 3, 3])).tolist() == [3, 1, 3]
    assert collapse(np.array([], np.int64)).tolist() == []


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 9))
def test_greedy_is_what_training_measures(seed, num_frames, num_outputs):
    log_probs = random_log_probs(seed, num_frames, num_outputs)
    theirs = greedy_ctc_labels(torch.from_numpy(log_probs).unsqueeze(1), torch.tensor([num_frames]))
    assert [ctc_greedy(log_probs)] == theirs


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(2, 4))
def test_wide_beam_finds_the_most_probable_labels(seed, num_frames, num_outputs):
    log_probs = random_log_probs(seed, num_frames, num_outputs)
    totals = ctc_by_enumeration(log_probs)
    found = tuple(CtcBeam(num_outputs - 1, BeamConfig(beam_size=2000))(log_probs))
    # Compare by probability: two sequences may tie.
    assert totals[found] == pytest.approx(max(totals.values()), rel=1e-4)


def test_beam_beats_greedy_where_paths_add_up():
    # Each frame prefers blank (0.4), but the label sequence (0,) gathers more paths.
    probabilities = np.array([[0.35, 0.25, 0.4], [0.35, 0.25, 0.4]], np.float32)
    log_probs = np.log(probabilities)
    totals = ctc_by_enumeration(log_probs)
    assert max(totals, key=totals.get) == (0,)
    assert ctc_greedy(log_probs) == []
    assert CtcBeam(2, BeamConfig())(log_probs) == [0]


def test_first_symbol_is_not_lost_to_the_search_start():
    # A search that starts in any real symbol would swallow that symbol at the first frame.
    for symbol in range(3):
        assert CtcBeam(3, BeamConfig())(frames(symbol, 3, symbol, num_outputs=4)) == [symbol] * 2


def test_beam_of_nothing_is_nothing():
    assert CtcBeam(2, BeamConfig())(np.zeros((0, 3), np.float32)) == []


@pytest.mark.parametrize(
    ("decoder", "objective", "chosen"),
    [
        ("auto", "ctc", "greedy"),
        ("auto", "frame", "viterbi"),
        ("beam", "ctc", "beam"),
        ("viterbi", "frame", "viterbi"),
    ],
)
def test_choice_of_decoder(decoder, objective, chosen):
    assert choose_decoder(EvaluateConfig(decoder=decoder), objective, "m") == chosen


@pytest.mark.parametrize(("decoder", "objective"), [("beam", "frame"), ("viterbi", "ctc")])
def test_unfit_decoder_is_refused(decoder, objective):
    with pytest.raises(PipelineError, match=r"decoder=.* does not fit"):
        choose_decoder(EvaluateConfig(decoder=decoder), objective, "m")


def test_viterbi_needs_statistics():
    from types import SimpleNamespace

    lacking = SimpleNamespace(label_statistics={})
    config = EvaluateConfig()
    with pytest.raises(PipelineError, match="train it again"):
        build_decoder("viterbi", lacking, config, config.viterbi)
