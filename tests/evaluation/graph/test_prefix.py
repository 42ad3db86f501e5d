"""Prefix beam search against the sum over every alignment there is."""

import itertools
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.decoding import ctc_greedy
from evaluation.graph.lattice import hypotheses
from evaluation.graph.outputs import Outputs, search_graph
from evaluation.graph.phones import phone_graph
from evaluation.graph.search import GraphSearch, SearchWeights

WIDE = SearchWeights(
    lm_weight=0.7,
    word_score=-0.4,
    prior_scale=0.5,
    beam=1e4,
    max_active=1_000_000,
    max_prefixes=100_000,
)


def search_with(num_symbols, bigrams, **changes):
    none = np.zeros(num_symbols + 1, np.float32)
    every = np.arange(num_symbols + 1, dtype=np.int32)
    stay = none.copy()
    stay[-1] = np.inf
    outputs = Outputs(num_symbols, True, every[:-1, None], every, stay, none, none, False)
    graph = search_graph(phone_graph(outputs, bigrams, 0.5), tuple("ABC"[:num_symbols]), outputs)
    return GraphSearch(graph, WIDE.model_copy(update=changes))


def log_probabilities(rows):
    return np.log(np.array(rows)).astype(np.float32)


def sums_over_alignments(log_probs_TO):
    """Logarithm of the probability of every sequence, over all paths through the outputs."""
    num_frames, num_outputs = log_probs_TO.shape
    found = defaultdict(float)
    for path in itertools.product(range(num_outputs), repeat=num_frames):
        runs = [output for output, _ in itertools.groupby(path)]
        symbols = tuple(output for output in runs if output != num_outputs - 1)
        found[symbols] += float(np.exp(log_probs_TO[range(num_frames), path].sum(dtype=float)))
    return {symbols: float(np.log(total)) for symbols, total in found.items()}


@given(st.integers(0, 10_000), st.integers(2, 3), st.integers(1, 6))
def test_a_wide_beam_finds_the_best_sum_of_all_alignments(seed, num_symbols, num_frames):
    rng = np.random.default_rng(seed)
    scores = 2 * rng.normal(size=(num_frames, num_symbols + 1))
    log_probs = (scores - np.log(np.exp(scores).sum(1, keepdims=True))).astype(np.float32)
    bigrams = rng.integers(1, 9, (num_symbols + 1, num_symbols + 1))
    counts = bigrams + 0.5
    counts[-1, -1] = 1e-300  # something is said
    bigram = np.log(counts / counts.sum(1, keepdims=True))

    def with_language(symbols, acoustic):
        path = (num_symbols, *symbols, num_symbols)
        language = sum(bigram[pair] for pair in itertools.pairwise(path))
        return acoustic + WIDE.lm_weight * language + WIDE.word_score * len(symbols)

    all_of_them = {s: with_language(s, a) for s, a in sums_over_alignments(log_probs).items() if s}
    best = max(all_of_them, key=all_of_them.__getitem__)
    found = search_with(num_symbols, bigrams).find(log_probs)
    # Costs in a graph are rounded to 1 / 1024.
    assert found.score == pytest.approx(all_of_them[best], abs=0.01)
    assert all_of_them[found.labels] == pytest.approx(all_of_them[best], abs=0.01)


def test_many_alignments_outweigh_the_best_path_by_hand():
    search = search_with(2, np.ones((3, 3), int), lm_weight=0.0, word_score=0.0)
    # The best path says nothing (0.6 * 0.6); those with A have 0.64 together.
    frames = log_probabilities([[0.4, 1e-9, 0.6], [0.4, 1e-9, 0.6]])
    found = search.find(frames)
    assert ctc_greedy(frames) == []
    assert (found.labels, np.exp(found.score)) == ((0,), pytest.approx(0.64, rel=1e-4))
    # AB by A-B, AAB, ABB, -AB and AB-, of which the best has 0.216.
    frames = log_probabilities([[0.6, 1e-9, 0.4], [0.3, 0.1, 0.6], [1e-9, 0.6, 0.4]])
    found = search.find(frames)
    ways = 0.6 * 0.6 * 0.6 + 0.6 * 0.3 * 0.6 + 0.6 * 0.1 * 0.6 + 0.4 * 0.3 * 0.6 + 0.6 * 0.1 * 0.4
    assert (found.labels, np.exp(found.score)) == ((0, 1), pytest.approx(ways, rel=1e-4))


def test_a_symbol_follows_its_like_after_a_blank_alone():
    search = search_with(2, np.ones((3, 3), int), lm_weight=0.0, word_score=0.0)
    a, blank = [0.98, 0.01, 0.01], [0.01, 0.01, 0.98]
    assert search(log_probabilities([a, a, a])) == [0]
    assert search(log_probabilities([a, blank, a, a])) == [0, 0]


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_pieces_of_a_stream_are_the_whole(seed, size):
    rng = np.random.default_rng(seed)
    log_probs = np.log(rng.dirichlet(np.full(4, 0.3), size=40) + 1e-6).astype(np.float32)
    search = search_with(3, rng.integers(1, 9, (4, 4)), beam=9.0, max_prefixes=6)
    stream = search.stream()
    for start in range(0, 40, size):
        stream.step(log_probs[start : start + size])
    assert stream.end() == search.find(log_probs)


def test_no_more_is_kept_than_asked_for():
    rng = np.random.default_rng(0)
    log_probs = np.log(rng.dirichlet(np.ones(4), size=60)).astype(np.float32)
    search = search_with(3, np.ones((4, 4), int), max_prefixes=3)
    stream = search.stream()
    for row in log_probs:
        stream.step(row[None])
        assert len(stream._beam._keys) <= 3
    narrow = search_with(3, np.ones((4, 4), int), max_prefixes=64).find(log_probs)
    assert stream.end().score <= narrow.score + 1e-9


def test_nothing_heard_is_nothing_found():
    found = search_with(2, np.ones((3, 3), int)).find(np.zeros((0, 3), np.float32))
    assert (found.labels, found.score) == ((), 0.0)


def test_several_hypotheses_are_ranked_by_the_sums_and_a_symbol_is_as_sure_as_its_share():
    search = search_with(2, np.ones((3, 3), int), lm_weight=0.0, word_score=0.0)
    # A by AA, A- and -A; B likewise; AB, BA; a search of symbols finds at least one of them
    frames = log_probabilities([[0.4, 0.2, 0.4], [0.3, 0.3, 0.4]])
    ways = {(0,): 0.12 + 0.16 + 0.12, (1,): 0.06 + 0.08 + 0.12, (0, 1): 0.12, (1, 0): 0.06}
    several = hypotheses(search, frames, 4, frame_shift_s=0.15)
    assert [one.labels for one in several.found] == list(ways)
    assert np.exp([one.score for one in several.found]) == pytest.approx(
        list(ways.values()), rel=1e-3
    )
    # A is in all but B
    assert several.confidences == pytest.approx((1 - 0.26 / sum(ways.values()),), rel=1e-3)


@given(st.integers(0, 10_000))
def test_the_first_of_several_is_what_is_found_and_no_two_are_alike(seed):
    rng = np.random.default_rng(seed)
    log_probs = np.log(rng.dirichlet(np.full(4, 0.3), size=30) + 1e-6).astype(np.float32)
    search = search_with(3, rng.integers(1, 9, (4, 4)), beam=9.0, max_prefixes=8)
    several = hypotheses(search, log_probs, 5, frame_shift_s=0.03)
    assert several.found[0] == search.find(log_probs)
    labels = [one.labels for one in several.found]
    assert len(set(labels)) == len(labels) > 1
    assert [one.score for one in several.found] == sorted(
        (one.score for one in several.found), reverse=True
    )
    assert len(several.confidences) == len(labels[0])
    assert all(0 <= share <= 1 for share in several.confidences)
