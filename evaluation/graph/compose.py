"""From a graph over symbols to one over a recogniser's outputs: contexts and states put in.

Mohri, Pereira & Riley, *Speech recognition with weighted finite-state transducers*, 2008, with the
recipe of Povey et al., *The Kaldi speech recognition toolkit*, 2011. Self-loops, durations and the
weights of the search are no part of it: ``evaluation.graph.search`` puts them on.

Labels in: 0 none, then the symbols from 1, then marks that keep words apart that sound the same.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.graph.arrays import ARC, GraphArrays, from_fst, graph_of, make_arcs, to_mutable_fst
from evaluation.graph.outputs import Outputs


def over_outputs(symbols: Any, outputs: Outputs, num_marks: int) -> GraphArrays:
    """Compose contexts and states with a graph over symbols.

    Args:
        symbols: OpenFst's graph, of symbols (from 1) and marks (after the symbols) to words or
            symbols; determinised.
        num_marks: labels after the symbols that are marks.

    Returns:
        The graph from emissions (from 1) to words or symbols.
    """
    import kaldifst

    if outputs.is_ctc:
        above = _blanks(outputs.num_symbols, num_marks)
        num_emissions = outputs.num_symbols + 1
    else:
        symbols, units_UK, num_marks = _in_units(symbols, outputs, num_marks)
        above = _states(units_UK, outputs.may_skip, len(outputs.stay_E), num_marks)
        num_emissions = len(outputs.stay_E)
    states = to_mutable_fst(above)
    kaldifst.arcsort(states, sort_type="olabel")
    kaldifst.arcsort(symbols, sort_type="ilabel")
    found = kaldifst.StdVectorFst(kaldifst.compose(states, symbols))
    if not outputs.is_ctc:
        kaldifst.determinize_star(found)
    composed = from_fst(found)
    arcs = composed.arcs_A.copy()
    arcs["ilabel"][arcs["ilabel"] > num_emissions] = 0
    unmarked = GraphArrays(composed.start, composed.final_S, composed.source_A, arcs)
    found = to_mutable_fst(unmarked)
    kaldifst.minimize_encoded(found)
    return from_fst(found)


def _in_units(symbols: Any, outputs: Outputs, num_marks: int) -> tuple[Any, NDArray[np.int32], int]:
    """Replace symbols by units: what has the same states, be it in different contexts.

    Returns:
        The graph; the emissions (U, K) of each unit, from 1; the number of marks after them.
    """
    import kaldifst

    size = outputs.num_symbols
    if outputs.table.ndim == 2:
        return symbols, outputs.table, num_marks
    marks = list(range(size + 1, size + num_marks + 1))
    in_context, windows = kaldifst.compose_context(marks, 3, 1, symbols)
    is_phone = np.array([len(window) == 3 for window in windows])
    places = np.array([window for window in windows if len(window) == 3])
    # Outside of the utterance is 0 there, and the last of the table.
    left, right = (np.where(places[:, c] == 0, size, places[:, c] - 1) for c in (0, 2))
    rows = outputs.table[left, places[:, 1] - 1, right]
    units_UK, unit = np.unique(rows, axis=0, return_inverse=True)
    relabel = np.zeros(len(windows), np.int32)
    relabel[is_phone] = unit.ravel() + 1
    is_mark = ~is_phone
    is_mark[0] = False  # no label
    relabel[is_mark] = len(units_UK) + 1 + np.arange(is_mark.sum())
    arrays = from_fst(in_context)
    arcs = arrays.arcs_A.copy()
    arcs["ilabel"] = relabel[arcs["ilabel"]]
    relabelled = GraphArrays(arrays.start, arrays.final_S, arrays.source_A, arcs)
    return to_mutable_fst(relabelled), units_UK, int(is_mark.sum())


def _states(
    units_UK: NDArray[np.int32], may_skip: bool, num_emissions: int, num_marks: int
) -> GraphArrays:
    """From emissions to units, any number of them; marks pass through.

    Where states may be passed over, the same emissions can be one unit or two of its like: then
    every unit ends on a mark of its own, without which the graph could not be determinised.
    """
    num_units, num_parts = units_UK.shape
    # State 0 is between units; the others stand after a part of a unit, other than the last where
    # no part may be passed over.
    num_inside = num_parts if may_skip else num_parts - 1
    inside_UK = 1 + np.arange(num_units * num_inside).reshape(num_units, num_inside)
    after_UK = np.concatenate([inside_UK, np.zeros((num_units, 1), np.int64)], axis=1)
    units = 1 + np.arange(num_units)
    sources: list[NDArray[np.integer]] = []
    arcs: list[NDArray[Any]] = []

    def add(source: Any, new: NDArray[Any]) -> None:
        sources.append(np.broadcast_to(source, new.shape))
        arcs.append(new)

    for part in range(num_parts):
        emission, after = units_UK[:, part] + 1, after_UK[:, part]
        if part == 0 or may_skip:
            add(0, make_arcs(emission, units, 0.0, after))
        for before in range(part) if may_skip else range(max(0, part - 1), part):
            add(after_UK[:, before], make_arcs(emission, 0, 0.0, after))
        if may_skip:
            add(after, make_arcs(np.full(num_units, num_emissions + num_marks + 1), 0, 0.0, 0))
    marks = np.arange(1, num_marks + 1)
    add(0, make_arcs(num_emissions + marks, num_units + marks, 0.0, 0))
    final_S = np.full(1 + inside_UK.size, np.inf)
    final_S[0] = 0.0
    return graph_of(0, final_S, np.concatenate(sources), np.concatenate(arcs))


def _blanks(num_symbols: int, num_marks: int) -> GraphArrays:
    """CTC: a blank must part a symbol from its like, and may stand between any two.

    State 0 stands before everything and after a blank, state s after symbol s.
    """
    symbols = np.arange(1, num_symbols + 1)
    blank, marks = num_symbols + 1, np.arange(1, num_marks + 1)
    everywhere = np.arange(num_symbols + 1)
    before, after = (m.ravel() for m in np.meshgrid(everywhere, symbols, indexing="ij"))
    other = before != after
    marked, mark = (m.ravel() for m in np.meshgrid(everywhere, marks, indexing="ij"))
    columns = [
        (before[other], make_arcs(after[other], after[other], 0.0, after[other])),
        (everywhere, make_arcs(blank, 0, 0.0, np.zeros(num_symbols + 1))),
        (marked, make_arcs(blank + mark, num_symbols + mark, 0.0, marked)),
    ]
    return graph_of(
        0,
        np.zeros(num_symbols + 1),
        np.concatenate([source for source, _ in columns]),
        np.concatenate([arcs for _, arcs in columns]).astype(ARC),
    )
