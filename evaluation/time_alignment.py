"""When each recognised symbol was heard: the best monotone path of a symbol sequence.

Decoders give symbols, some without times. Given the symbols, the times follow from the scores: the
path through the frames with the highest sum of log-probabilities that visits the symbols in
order (forced alignment; Viterbi 1967, with CTC's optional blanks as Graves et al. 2006).

Shape legend: T frames, O outputs, N states of a path, P phones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurize.schema import StateInventory


@dataclass(frozen=True)
class Span:
    """A symbol and the frames it covers, ``start`` up to but not including ``end``."""

    symbol_id: int
    start: int
    end: int


def runs_of(path_T: NDArray[np.int32]) -> list[Span]:
    """Runs of equal ids as spans."""
    if len(path_T) == 0:
        return []
    starts = np.flatnonzero(np.concatenate([[True], path_T[1:] != path_T[:-1]]))
    ends = [*starts[1:].tolist(), len(path_T)]
    return [
        Span(int(path_T[start]), int(start), end) for start, end in zip(starts, ends, strict=True)
    ]


def phone_runs(path_T: NDArray[np.int32], states: StateInventory | None) -> list[Span]:
    """Runs of one phone each, from a path of tied states; runs of equal ids where None.

    A phone begins where another stood before, or where its states begin anew.
    """
    runs = runs_of(path_T)
    if states is None:
        return runs
    phones: list[Span] = []
    position_before = 0
    for run in runs:
        phone, position = states.phones[run.symbol_id], states.positions[run.symbol_id]
        if phones and phones[-1].symbol_id == phone and position > position_before:
            phones[-1] = Span(phone, phones[-1].start, run.end)
        else:
            phones.append(Span(phone, run.start, run.end))
        position_before = position
    return phones


def phone_scores(
    log_probs_TO: NDArray[np.floating], states: StateInventory | None
) -> NDArray[np.floating]:
    """Log-probability of each phone, the sum over its states, (T, P); as it is where None."""
    if states is None:
        return log_probs_TO
    phones = np.array(states.phones)
    scores_PT = np.full((int(phones.max()) + 1, len(log_probs_TO)), -np.inf)
    np.logaddexp.at(scores_PT, phones, np.asarray(log_probs_TO, np.float64).T)
    return np.ascontiguousarray(scores_PT.T)


def align_symbols(
    log_probs_TO: NDArray[np.floating], symbol_ids: Sequence[int], blank: int | None
) -> list[Span]:
    """Place symbols in time.

    Args:
        log_probs_TO: scores of the valid frames.
        symbol_ids: what was recognised, in order.
        blank: CTC's blank, which may stand between symbols and must between equal ones; None for
            a frame model, whose symbols fill every frame.

    Returns:
        One span per symbol in order; empty where there are too few frames for them.
    """
    if blank is None:
        states, is_optional = np.array(symbol_ids, np.int64), np.zeros(len(symbol_ids), bool)
    else:
        states = np.full(2 * len(symbol_ids) + 1, blank, np.int64)
        states[1::2] = symbol_ids
        is_optional = states == blank
    path_T = _best_path(np.asarray(log_probs_TO, np.float64), states, is_optional)
    spans = (Span(int(states[run.symbol_id]), run.start, run.end) for run in runs_of(path_T))
    return [span for span in spans if span.symbol_id != blank]


def _best_path(
    log_probs_TO: NDArray[np.float64], states: NDArray[np.int64], is_optional: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """State of each frame, (T,); empty where no path visits all states that are not optional."""
    num_frames, num_states = len(log_probs_TO), len(states)
    if num_frames == 0 or num_states == 0:
        return np.empty(0, np.int32)
    # A state is entered from itself, the one before, or across an optional one between two
    # different symbols.
    may_skip = np.zeros(num_states, bool)
    may_skip[2:] = is_optional[1:-1] & (states[2:] != states[:-2])
    best_N = np.full(num_states, -np.inf)
    begin = 2 if is_optional[0] else 1
    best_N[:begin] = log_probs_TO[0, states[:begin]]
    came_from = np.zeros((num_frames, num_states), np.int32)
    for t in range(1, num_frames):
        candidates = np.full((3, num_states), -np.inf)
        candidates[0] = best_N
        candidates[1, 1:] = best_N[:-1]
        candidates[2, 2:] = np.where(may_skip[2:], best_N[:-2], -np.inf)
        step = candidates.argmax(0)
        came_from[t] = np.arange(num_states) - step
        best_N = candidates[step, np.arange(num_states)] + log_probs_TO[t, states]
    last = num_states - 1
    if num_states > 1 and is_optional[last] and best_N[last - 1] > best_N[last]:
        last -= 1
    if not np.isfinite(best_N[last]):
        return np.empty(0, np.int32)
    path = np.empty(num_frames, np.int32)
    path[-1] = last
    for t in range(num_frames - 1, 0, -1):
        path[t - 1] = came_from[t, path[t]]
    return path
