import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.config import ViterbiConfig
from evaluation.state_search import expand, phones_of_path, state_search, triphone_graph
from evaluation.triphone_search import best_phones
from evaluation.viterbi import best_path
from featurize.schema import StateInventory
from training.align.states import phone_state_inventory, state_table

COUNTS = np.array([[1, 6, 3], [4, 2, 2], [7, 2, 0]])
"""Bigrams of two phones, starts and ends."""


def senones(num_parts):
    """Phone 0 in two groups of left neighbours, phone 1 in two of right ones, at every part."""
    groups = [(0, (0, 2), ()), (0, (1,), ()), (1, (), (1,)), (1, (), (0, 2))]
    cells = [(*group, part) for group in groups for part in range(num_parts)]
    return StateInventory(
        states_per_phone=num_parts,
        phones=tuple(phone for phone, _, _, _ in cells),
        positions=tuple(part for *_, part in cells),
        left=tuple(left for _, left, _, _ in cells),
        right=tuple(right for _, _, right, _ in cells),
    )


def graph_of(states, shift=0.01, **changes):
    frames = np.arange(20.0, 20.0 + len(states.phones))
    return triphone_graph(states, COUNTS.astype(float), frames, ViterbiConfig(**changes), shift)


def brute_force(emission, graph):
    """The best of all phone sequences with all ways to lay the frames out on their states."""
    num_frames, num_parts = len(emission), graph.stay_PK.shape[1]
    best = (-np.inf, None)
    for length in range(1, num_frames + 1):
        for phones in itertools.product((0, 1), repeat=length):
            places = length * num_parts
            for path in monotonic_paths(num_frames, places, num_parts, graph.may_skip):
                total = score(path, phones, emission, graph)
                best = max(best, (total, phones))
    return best


def monotonic_paths(num_frames, num_places, num_parts, may_skip):
    """All ways through the places: one on at a time, or, skipping, missing no phone whole."""

    def grow(path):
        if len(path) == num_frames:
            if path[-1] // num_parts == num_places // num_parts - 1 and (
                may_skip or path[-1] == num_places - 1
            ):
                yield path
            return
        for place in range(path[-1], num_places):
            same_or_next = place // num_parts - path[-1] // num_parts <= 1
            if same_or_next and (may_skip or place <= path[-1] + 1):
                yield from grow([*path, place])

    for first in range(num_parts if may_skip else 1):
        yield from grow([first])


def score(path, phones, emission, graph):
    num_parts = graph.stay_PK.shape[1]
    outside = len(graph.start_P)
    context = [outside, *phones, outside]
    total = graph.start_P[phones[0]] + graph.end_P[phones[-1]]
    for t, place in enumerate(path):
        number, part = divmod(place, num_parts)
        phone = phones[number]
        total += emission[t, graph.table[context[number], phone, context[number + 2], part]]
        after = path[t + 1] if t + 1 < len(path) else None
        total += (graph.stay_PK if after == place else graph.leave_PK)[phone, part]
        if after is not None and after // num_parts != number:
            total += graph.change_PP[phone, phones[number + 1]]
    return total


@settings(max_examples=25)
@given(
    st.integers(0, 10_000),
    st.integers(1, 5),
    st.sampled_from([(1, 0.01), (2, 0.01), (2, 0.03)]),
    st.floats(-1, 2),
)
def test_the_triphone_search_finds_the_best_of_all_paths(seed, num_frames, kind, penalty):
    num_parts, shift = kind
    graph = graph_of(senones(num_parts), shift, insertion_penalty=penalty)
    rng = np.random.default_rng(seed)
    emission = rng.normal(0, 2, (num_frames, 4 * num_parts)).astype(np.float32)
    phones, found = best_phones(emission, graph)
    expected, best = brute_force(emission, graph)
    assert found == pytest.approx(expected, abs=1e-4)
    if best is not None:
        assert max(
            score(path, phones, emission, graph)
            for path in monotonic_paths(
                num_frames, len(phones) * num_parts, num_parts, graph.may_skip
            )
        ) == pytest.approx(expected, abs=1e-4)


@settings(max_examples=40)
@given(
    st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([(2, 0.01), (3, 0.01), (3, 0.03)])
)
def test_states_without_context_score_alike_in_both_searches(seed, num_frames, kind):
    num_parts, shift = kind
    graph = graph_of(states := phone_state_inventory(2, num_parts), shift)
    graph = replace(graph, table=state_table(states, 2))
    rng = np.random.default_rng(seed)
    emission = rng.normal(0, 2, (num_frames, 2 * num_parts)).astype(np.float32)
    _, expected = best_phones(emission, graph)
    path, found = best_path(emission, expand(graph), 0.0)
    # Anew in the part one stands in is, in the small graph, staying there.
    assert found == pytest.approx(expected, abs=1e-4) or graph.may_skip
    if np.isfinite(expected) and not graph.may_skip:
        assert phones_of_path(path, num_parts) == best_phones(emission, graph)[0]


def test_the_context_decides_where_the_phone_alone_would_not():
    states = senones(1)
    frames = np.full(4, 10.0)
    config = ViterbiConfig(bigram_weight=0.0, prior_scale=0.0)
    decode = state_search(states, COUNTS, frames, config, 0.01)
    after_other, after_1, _, before_other = range(4)
    scores = np.full((8, 4), -8.0, np.float32)
    scores[:4, after_other] = -0.1
    scores[4:, before_other] = -0.1
    assert decode(scores) == [0, 1]
    # The same frames in the senone of phone 0 after phone 1 fit no beginning.
    scores[:, after_other], scores[:, after_1] = -8.0, -0.2
    assert decode(scores)[0] == 1


def test_priors_are_taken_off():
    states = phone_state_inventory(2, 2)
    rare_first = np.array([1.0, 1.0, 999.0, 999.0])
    even = np.log(np.full((6, 4), 0.25, np.float32))
    config = ViterbiConfig(bigram_weight=0.0, prior_scale=1.0)
    assert set(state_search(states, COUNTS, rare_first, config, 0.01)(even)) == {0}


def test_a_path_that_goes_back_enters_anew():
    assert phones_of_path(np.array([0, 1, 0, 1, 1, 4, 5]), 2) == [0, 0, 2]
    assert phones_of_path(np.array([], int), 2) == []


def test_the_table_of_states_is_checked():
    states = senones(2)
    table = state_table(states, 2)
    assert table.shape == (3, 2, 3, 2)
    assert table[1, 0, 2].tolist() == [2, 3]
    assert table[0, 1, 1].tolist() == table[2, 1, 1].tolist() == [4, 5]
    for broken, message in (
        ({"left": ((0, 1, 2),) * 8}, "another"),
        ({"phones": (0, 0, 0, 0, 1, 1, 1, 5)}, "no such"),
        ({"right": ((), (), (), (), (1,), (1,), (0,), (0,))}, "out"),
        ({"left": ((9,), *states.left[1:])}, "not there"),
        ({"positions": (0,)}, "length"),
    ):
        with pytest.raises(ValueError, match=message):
            state_table(states.model_copy(update=broken), 2)
