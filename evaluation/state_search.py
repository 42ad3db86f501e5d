"""The phone search of a model whose outputs are hidden Markov states: parts of phones, or senones.

As in ``evaluation.viterbi``, with K states a phone in place of one. A state with mean duration
``d`` in training frames has ``log(1 - 1 / d)`` for staying and ``log(1 / d)`` for leaving, which
goes to the next state of the phone, or from the last to the first of the next phone by the
bigram. A phone may follow itself. Where frames are further apart than ``THREE_STATE_SHIFT_S``, a
phone can have fewer frames than states: then states may be passed over.

States that know no context are searched in one graph; senones in ``evaluation.triphone_search``.
Several states of one part of a phone whose contexts are not known (of Kaldi's making) count as one,
scored by the best of them.

Shape legend: T frames, S states, P phones, K states per phone.
"""

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from evaluation.config import ViterbiConfig
from evaluation.triphone_search import TriphoneGraph, best_phones
from evaluation.viterbi import PhoneGraph, best_path, log_priors, weighted_bigram
from featurize.schema import THREE_STATE_SHIFT_S, StateInventory
from training.align.states import state_table

_MIN_DURATION = 1.1


def state_search(
    states: StateInventory,
    bigram_counts: NDArray[np.generic],
    frame_counts: NDArray[np.generic],
    config: ViterbiConfig,
    frame_shift_s: float,
) -> Callable[[NDArray[np.float32]], list[int]]:
    """Make the decoder of a model of states: log posteriors (T, S) to phone ids.

    Args:
        states: what the model's outputs are.
        bigram_counts: (P + 1, P + 1); row P counts starts, column P ends.
        frame_counts: (S,) training frames of each state.
        config: weights of the search.
        frame_shift_s: between the model's frames.
    """
    counts = np.asarray(bigram_counts, np.float64)
    frames_S = np.asarray(frame_counts, np.float64)
    if frames_S.shape != (len(states.phones),):
        raise ValueError(f"{frames_S.shape} frame counts for {len(states.phones)} states")
    graph = triphone_graph(states, counts, frames_S, config, frame_shift_s)
    taken_off_S = (config.prior_scale * log_priors(frames_S, config.smoothing)).astype(np.float32)
    if any(states.left) or any(states.right):
        return lambda log_probs_TS: best_phones(log_probs_TS - taken_off_S, graph)[0]
    expanded = expand(graph)
    members = members_of_parts(states, len(counts) - 1)

    def decode(log_probs_TS: NDArray[np.float32]) -> list[int]:
        scores_TS = log_probs_TS - taken_off_S
        parts = np.full((len(scores_TS), len(members)), -np.inf, np.float32)
        for number, own in enumerate(members):
            if len(own):
                parts[:, number] = scores_TS[:, own].max(1)
        path, _ = best_path(parts, expanded, prior_scale=0.0)
        return phones_of_path(path, states.states_per_phone)

    return decode


def members_of_parts(states: StateInventory, num_phones: int) -> list[NDArray[np.int64]]:
    """The states of each (phone, position): one, or, where contexts are not known, several."""
    place = np.array(states.phones) * states.states_per_phone + np.array(states.positions)
    return [np.flatnonzero(place == p) for p in range(num_phones * states.states_per_phone)]


def triphone_graph(
    states: StateInventory,
    bigram_counts: NDArray[np.float64],
    frames_S: NDArray[np.float64],
    config: ViterbiConfig,
    frame_shift_s: float,
) -> TriphoneGraph:
    """Weights of the search from the training labels' statistics."""
    num_phones, num_parts = len(bigram_counts) - 1, states.states_per_phone
    frames_PK = np.zeros((num_phones, num_parts))
    np.add.at(frames_PK, (np.array(states.phones), np.array(states.positions)), frames_S)
    occurrences = np.maximum(bigram_counts[:num_phones].sum(1), 1.0)
    duration_PK = np.maximum(frames_PK / occurrences[:, None], _MIN_DURATION)
    weighted = weighted_bigram(bigram_counts, config, repeats=num_parts > 1)
    has_context = any(states.left) or any(states.right)
    return TriphoneGraph(
        table=state_table(states, num_phones) if has_context else np.empty((0,) * 4, np.int32),
        stay_PK=np.log1p(-1.0 / duration_PK).astype(np.float32),
        leave_PK=-np.log(duration_PK).astype(np.float32),
        start_P=weighted[num_phones, :num_phones].astype(np.float32),
        change_PP=(weighted[:num_phones, :num_phones] - config.insertion_penalty).astype(
            np.float32
        ),
        end_P=weighted[:num_phones, num_phones].astype(np.float32),
        may_skip=num_parts > 1 and frame_shift_s > THREE_STATE_SHIFT_S,
    )


def graph_of_parts(
    states: StateInventory,
    bigram_counts: NDArray[np.generic],
    frame_counts: NDArray[np.generic],
    config: ViterbiConfig,
    frame_shift_s: float,
) -> PhoneGraph:
    """The graph of (phone, position) pairs, whatever contexts the states know; priors of 0.

    Args:
        states: what the model's outputs are.
        bigram_counts: as in ``state_search``; likewise ``frame_counts``.
        config: weights of the search.
        frame_shift_s: between the model's frames.
    """
    free = states.model_copy(update={"left": ((),), "right": ((),)})
    counts, frames = np.asarray(bigram_counts, np.float64), np.asarray(frame_counts, np.float64)
    return expand(triphone_graph(free, counts, frames, config, frame_shift_s))


def expand(graph: TriphoneGraph) -> PhoneGraph:
    """The graph of (phone, position) pairs, for states that know no context."""
    num_phones, num_parts = graph.stay_PK.shape
    size = num_phones * num_parts
    start, end = np.full(size, -np.inf), np.full(size, -np.inf)
    transition = np.full((size, size), -np.inf)
    first = np.arange(num_phones) * num_parts
    parts = range(num_parts)
    for part in parts if graph.may_skip else [0]:
        start[first + part] = graph.start_P
    for part in parts if graph.may_skip else [num_parts - 1]:
        leave = graph.leave_PK[:, part]
        end[first + part] = leave + graph.end_P
        for entered in parts if graph.may_skip else [0]:
            rows, columns = np.ix_(first + part, first + entered)
            transition[rows, columns] = leave[:, None] + graph.change_PP
    for part, later in itertools.combinations(parts, 2):
        if later == part + 1 or graph.may_skip:
            transition[first + part, first + later] = graph.leave_PK[:, part]
    for part in parts:
        transition[first + part, first + part] = graph.stay_PK[:, part]
    return PhoneGraph(start, transition, end, np.zeros(size))


def phones_of_path(path_T: NDArray[np.int64], num_parts: int) -> list[int]:
    """The phones a path of (phone, position) states goes through; going back is entering anew."""
    if not len(path_T):
        return []
    phones, positions = np.divmod(path_T, num_parts)
    is_new = (np.diff(phones) != 0) | (np.diff(positions) < 0)
    return [int(phone) for phone in phones[np.concatenate([[True], is_new])]]
