"""The graph of a search for symbols: which may follow which, by a bigram of the training labels."""

import numpy as np
from numpy.typing import NDArray

from evaluation.graph.arrays import GraphArrays, graph_of, make_arcs, to_mutable_fst
from evaluation.graph.compose import over_outputs
from evaluation.graph.outputs import Outputs


def phone_graph(
    outputs: Outputs, bigram_counts: NDArray[np.generic], smoothing: float
) -> GraphArrays:
    """The graph over a recogniser's outputs whose words are its symbols, numbered from 1.

    Args:
        bigram_counts: (S + 1, S + 1) of the training labels; row S counts starts, column S ends.
        smoothing: added to every count before normalising.
    """
    # A path cannot tell a symbol of one state that follows itself from one that lasts.
    has_repeats = outputs.is_ctc or outputs.table.shape[-1] > 1
    bigram = _bigram(bigram_counts, smoothing, repeats=has_repeats)
    return over_outputs(to_mutable_fst(bigram), outputs, num_marks=0)


def _bigram(bigram_counts: NDArray[np.generic], smoothing: float, *, repeats: bool) -> GraphArrays:
    """State s follows symbol s, state S stands at the start; costs of the next symbol."""
    counts = np.asarray(bigram_counts, np.float64) + smoothing
    num_symbols = len(counts) - 1
    if not repeats:
        np.fill_diagonal(counts, 0.0)
    counts[-1, -1] = 0.0
    with np.errstate(divide="ignore"):
        cost = -np.log(counts / counts.sum(1, keepdims=True))
    before, after = np.nonzero(np.isfinite(cost[:, :num_symbols]))
    final_S = np.append(cost[:num_symbols, num_symbols], np.inf)
    arcs = make_arcs(after + 1, after + 1, cost[before, after], after)
    return graph_of(num_symbols, final_S, before, arcs)
