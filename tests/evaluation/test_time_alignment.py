import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.time_alignment import Span, align_symbols, phone_runs, phone_scores, runs_of
from featurize.schema import StateInventory


def scores(*frames):
    return np.log(np.array(frames, np.float64))


def collapsed(path, blank):
    runs = [symbol for symbol, _ in itertools.groupby(path)]
    return [symbol for symbol in runs if symbol != blank]


def test_a_frame_models_symbols_fill_the_frames():
    log_probs = scores([0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4])
    assert align_symbols(log_probs, [0, 1], None) == [Span(0, 0, 2), Span(1, 2, 4)]
    assert align_symbols(log_probs, [0, 1, 0], None) == [
        Span(0, 0, 2),
        Span(1, 2, 3),
        Span(0, 3, 4),
    ]


def test_ctc_leaves_blanks_out_and_parts_equal_symbols():
    a, blank = [0.9, 0.1], [0.1, 0.9]
    assert align_symbols(scores(blank, a, a, blank), [0], 1) == [Span(0, 1, 3)]
    assert align_symbols(scores(a, a, a), [0, 0], 1) == [Span(0, 0, 1), Span(0, 2, 3)]


def test_what_does_not_fit_has_no_times():
    assert align_symbols(scores([0.5, 0.5]), [0, 0], 1) == []
    assert align_symbols(scores([0.5, 0.5]), [0, 1], None) == []
    assert align_symbols(np.empty((0, 2)), [0], 1) == []
    assert align_symbols(scores([0.5, 0.5]), [], 1) == []
    assert align_symbols(scores([0.5, 0.5]), [], None) == []


@given(
    seed=st.integers(0, 10_000),
    num_frames=st.integers(1, 6),
    symbols=st.lists(st.integers(0, 1), max_size=3),
)
def test_ctc_alignment_is_the_best_of_all_paths(seed, num_frames, symbols):
    log_probs = np.log(np.random.default_rng(seed).dirichlet(np.ones(3), num_frames))
    paths = [
        path
        for path in itertools.product(range(3), repeat=num_frames)
        if collapsed(path, 2) == symbols
    ]
    spans = align_symbols(log_probs, symbols, 2)
    if not paths:
        assert spans == []
        return
    best = max(paths, key=lambda path: sum(log_probs[t, s] for t, s in enumerate(path)))
    expected = [span for span in runs_of(np.array(best, np.int32)) if span.symbol_id != 2]
    assert spans == expected


@pytest.mark.parametrize("path", [[], [3], [1, 1, 2, 1]])
def test_runs_cover_the_path(path):
    runs = runs_of(np.array(path, np.int32))
    assert [run.symbol_id for run in runs for _ in range(run.start, run.end)] == path


# Two parts of phone 0 (states 0 and 2), two of phone 1 (1 and 3).
TIED = StateInventory(
    states_per_phone=2,
    phones=(0, 1, 0, 1),
    positions=(0, 0, 1, 1),
    left=((), (), (), ()),
    right=((), (), (), ()),
)


def test_states_are_joined_to_the_phones_they_are_parts_of():
    path = np.array([0, 0, 2, 1, 3, 3, 0, 2, 2, 0, 2], np.int32)
    assert phone_runs(path, TIED) == [
        Span(0, 0, 3),
        Span(1, 3, 6),
        Span(0, 6, 9),
        Span(0, 9, 11),  # the same phone again begins with its first part
    ]
    assert phone_runs(path, None) == runs_of(path)


def test_a_phone_scores_the_sum_of_its_states():
    log_probs = scores([0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1])
    assert np.exp(phone_scores(log_probs, TIED)) == pytest.approx(
        np.array([[0.4, 0.6], [0.8, 0.2]])
    )
    assert phone_scores(log_probs, None) is log_probs
