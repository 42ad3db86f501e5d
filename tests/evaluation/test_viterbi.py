import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.config import ViterbiConfig
from evaluation.viterbi import best_path, build_graph

COUNTS = np.array([[1, 6, 2, 3], [4, 0, 5, 2], [3, 3, 0, 6], [7, 2, 2, 0]])
FRAMES = np.array([60, 44, 24])


def score(path, log_probs, graph, prior_scale):
    """A path's score, added up from the definition."""
    total = graph.start_S[path[0]] + graph.end_S[path[-1]]
    total += sum(log_probs[t, s] - prior_scale * graph.prior_S[s] for t, s in enumerate(path))
    return total + sum(graph.transition_SS[a, b] for a, b in itertools.pairwise(path))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10_000),
    st.integers(1, 6),
    st.floats(0, 3),
    st.floats(-2, 3),
    st.floats(0, 1.5),
)
def test_best_path_is_the_best_of_all_paths(seed, num_frames, weight, penalty, prior_scale):
    config = ViterbiConfig(bigram_weight=weight, insertion_penalty=penalty, prior_scale=prior_scale)
    graph = build_graph(COUNTS, FRAMES, config)
    rng = np.random.default_rng(seed)
    log_probs = np.log(rng.dirichlet(np.ones(3), num_frames))
    path, best = best_path(log_probs, graph, prior_scale)
    scores = {
        p: score(p, log_probs, graph, prior_scale)
        for p in itertools.product(range(3), repeat=num_frames)
    }
    assert best == pytest.approx(max(scores.values()))
    assert scores[tuple(path.tolist())] == pytest.approx(best)


def test_graph_by_hand():
    graph = build_graph(COUNTS, FRAMES, ViterbiConfig(smoothing=1.0, bigram_weight=1.0))
    # Phone 0: 12 occurrences (repeats included) over 60 frames last 5 frames each.
    assert graph.transition_SS[0, 0] == pytest.approx(np.log(1 - 1 / 5))
    # Its successors but itself, each plus one: 7 + 3 + 4.
    assert graph.transition_SS[0, 1] == pytest.approx(np.log(1 / 5) + np.log(7 / 14))
    assert graph.end_S[0] == pytest.approx(np.log(1 / 5) + np.log(4 / 14))
    assert graph.start_S[0] == pytest.approx(np.log(8 / 14))
    assert graph.prior_S[0] == pytest.approx(np.log(61 / 131))


def test_without_weight_and_penalty_only_durations_remain():
    graph = build_graph(COUNTS, FRAMES, ViterbiConfig(bigram_weight=0.0))
    assert graph.start_S == pytest.approx(np.zeros(3))
    assert graph.transition_SS[0, 1] == pytest.approx(graph.transition_SS[0, 2])


def test_each_phones_ways_add_up_to_one():
    graph = build_graph(COUNTS, FRAMES, ViterbiConfig(bigram_weight=1.0, insertion_penalty=0.0))
    total = np.exp(graph.transition_SS).sum(1) + np.exp(graph.end_S)
    assert total == pytest.approx(np.ones(3))
    assert np.exp(graph.start_S).sum() == pytest.approx(1.0)


def test_unseen_phones_stay_possible():
    graph = build_graph(np.zeros((4, 4)), np.array([5, 0, 0]), ViterbiConfig())
    for scores in (graph.start_S, graph.transition_SS, graph.end_S, graph.prior_S):
        assert np.isfinite(scores).all()


def test_a_larger_penalty_changes_phones_less_often():
    rng = np.random.default_rng(5)
    log_probs = np.log(rng.dirichlet(np.ones(3) * 0.5, 200))
    changes = []
    for penalty in (-2.0, 0.0, 2.0, 8.0):
        config = ViterbiConfig(insertion_penalty=penalty)
        path, _ = best_path(log_probs, build_graph(COUNTS, FRAMES, config), 0.5)
        changes.append(int((np.diff(path) != 0).sum()))
    assert changes == sorted(changes, reverse=True)
    assert changes[0] > changes[-1]


def test_no_frames_give_no_path():
    path, total = best_path(np.zeros((0, 3)), build_graph(COUNTS, FRAMES, ViterbiConfig()), 1.0)
    assert (path.size, total) == (0, 0.0)


def test_counts_of_another_inventory_are_refused():
    with pytest.raises(ValueError, match="do not fit 2 phones"):
        build_graph(COUNTS, FRAMES[:2], ViterbiConfig())


def test_a_phone_never_seen_in_training_is_not_rewarded_for_it() -> None:
    # Phone 2 has no frame: a tiny prior, taken off, would outweigh what the network says.
    bigrams = np.array([[0, 8, 0, 2], [8, 0, 0, 2], [0, 0, 0, 0], [2, 2, 0, 0]])
    graph = build_graph(bigrams, np.array([300, 300, 0]), ViterbiConfig())
    log_probs_TS = np.log(np.tile([0.5, 0.3, 0.2], (40, 1)))
    path, score = best_path(log_probs_TS, graph, prior_scale=1.0)
    assert set(path.tolist()) == {0}
    assert np.isfinite(score)
