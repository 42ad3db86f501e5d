"""The best phone sequence of a frame model, over a phone bigram.

A hidden Markov model with one state per phone. With ``s`` and ``s'`` phones, ``d_s`` the mean
duration of ``s`` in training frames::

    emission(t, s)    = log p(s | x_t) - prior_scale log p(s)
    stay(s)           = log(1 - 1 / d_s)
    change(s, s')     = log(1 / d_s) + bigram_weight log p(s' | s) - insertion_penalty
    start(s), end(s)  = bigram_weight log p(s | start), log(1 / d_s) + bigram_weight log p(end | s)

Shape legend: T frames, S phones.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.config import ViterbiConfig

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PhoneGraph:
    """Scores of all that a path may do, natural logarithms.

    Attributes:
        start_S: of beginning in a phone.
        transition_SS: of going from row to column within one frame; the diagonal stays.
        end_S: of ending in a phone.
        prior_S: log share of each phone among the training frames.
    """

    start_S: FloatArray
    transition_SS: FloatArray
    end_S: FloatArray
    prior_S: FloatArray


def build_graph(
    bigram_counts: NDArray[np.generic], frame_counts: NDArray[np.generic], config: ViterbiConfig
) -> PhoneGraph:
    """Make the search graph from the training labels' statistics.

    A path cannot tell a phone that follows itself from one that lasts, so repeats in the
    bigram are left out and the others share their probability.

    Args:
        bigram_counts: (S + 1, S + 1); row S counts starts, column S ends.
        frame_counts: (S,) frames of each phone.
        config: weights and smoothing.
    """
    counts = np.asarray(bigram_counts, np.float64)
    frames = np.asarray(frame_counts, np.float64)
    num_phones = frames.shape[0]
    if counts.shape != (num_phones + 1, num_phones + 1):
        raise ValueError(
            f"bigram counts of shape {counts.shape} do not fit {num_phones} phones; "
            f"expected {(num_phones + 1, num_phones + 1)}"
        )
    occurrences = np.maximum(counts[:num_phones].sum(1), 1.0)
    # At least one and a half frames: a phone seen once in one frame may still last.
    duration = np.maximum(frames / occurrences, 1.5)
    leave = -np.log(duration)
    weighted = weighted_bigram(counts, config, repeats=False)
    transition = leave[:, None] + weighted[:num_phones, :num_phones] - config.insertion_penalty
    np.fill_diagonal(transition, np.log1p(-1.0 / duration))
    return PhoneGraph(
        start_S=weighted[num_phones, :num_phones],
        transition_SS=transition,
        end_S=leave + weighted[:num_phones, num_phones],
        prior_S=log_priors(frames, config.smoothing),
    )


def weighted_bigram(counts: FloatArray, config: ViterbiConfig, *, repeats: bool) -> FloatArray:
    """``bigram_weight log p(s' | s)``, (S + 1, S + 1).

    Args:
        counts: of bigrams, as in ``build_graph``.
        config: weight and smoothing.
        repeats: whether a phone may follow itself.
    """
    smoothed = counts + config.smoothing
    if not repeats:
        np.fill_diagonal(smoothed, 0.0)
    smoothed[-1, -1] = 0.0
    probability = smoothed / smoothed.sum(1, keepdims=True)
    # What cannot happen stays impossible at any weight, zero included.
    possible = probability > 0
    weighted = np.full_like(probability, -np.inf)
    weighted[possible] = config.bigram_weight * np.log(probability[possible])
    return np.asarray(weighted, np.float64)


def log_priors(frames_S: FloatArray, smoothing: float) -> FloatArray:
    """Log share of each target among the training frames."""
    prior = (frames_S + smoothing) / (frames_S + smoothing).sum()
    # A target without a single training frame has no prior to take off; a tiny one, taken off,
    # would make it the best of every frame.
    prior[frames_S == 0] = 1.0
    return np.asarray(np.log(prior), np.float64)


def best_path(
    log_probs_TS: NDArray[np.floating], graph: PhoneGraph, prior_scale: float
) -> tuple[NDArray[np.int64], float]:
    """The highest-scoring phone of each frame together with the path's score (Viterbi 1967).

    Args:
        log_probs_TS: log posteriors of the valid frames.
        graph: the search graph.
        prior_scale: share of the log prior taken off.

    Returns:
        The path (T,) and its score; an empty path for no frames.
    """
    num_frames = log_probs_TS.shape[0]
    path = np.empty(num_frames, np.int64)
    if num_frames == 0:
        return path, 0.0
    emission = np.asarray(log_probs_TS, np.float64) - prior_scale * graph.prior_S
    columns = np.arange(emission.shape[1])
    came_from = np.empty(emission.shape, np.int32)
    best_S = graph.start_S + emission[0]
    for t in range(1, num_frames):
        arriving_SS = best_S[:, None] + graph.transition_SS
        origin_S = arriving_SS.argmax(0)
        came_from[t] = origin_S
        best_S = arriving_SS[origin_S, columns] + emission[t]
    best_S = best_S + graph.end_S
    path[-1] = best_S.argmax()
    for t in range(num_frames - 1, 0, -1):
        path[t - 1] = came_from[t, path[t]]
    return path, float(best_S.max())
