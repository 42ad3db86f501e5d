"""Weighted graphs as arrays, and their exchange with OpenFst.

OpenFst works on graphs of its own, one arc at a time from Python. Millions of arcs are written and
read at once here, in the file format of OpenFst's ``const`` type.

Shape legend: S states, A arcs.
"""

import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ARC = np.dtype([("ilabel", "<i4"), ("olabel", "<i4"), ("weight", "<f4"), ("next", "<i4")])
_STATE = np.dtype(
    [("final", "<f4"), ("first", "<u4"), ("arcs", "<u4"), ("in_eps", "<u4"), ("out_eps", "<u4")]
)
_MAGIC, _VERSION, _EXPANDED = 2125659606, 2, 1
_HEADER = struct.Struct("<iiQqqq")


@dataclass(frozen=True, eq=False)
class GraphArrays:
    """A weighted graph; costs are negative natural logarithms."""

    start: int  # first state
    final_S: NDArray[np.float32]  # cost of ending in each state, infinite where none may end
    source_A: NDArray[np.int32]  # state that each arc leaves, ascending
    arcs_A: NDArray[Any]  # of type ``ARC``; label 0 is none

    @property
    def num_states(self) -> int:
        """S."""
        return len(self.final_S)


def graph_of(
    start: int, final_S: NDArray[np.floating], source_A: NDArray[np.integer], arcs_A: NDArray[Any]
) -> GraphArrays:
    """A graph from arcs in any order."""
    order = np.argsort(source_A, kind="stable")
    return GraphArrays(
        start, final_S.astype(np.float32), source_A[order].astype(np.int32), arcs_A[order]
    )


def make_arcs(ilabel: Any, olabel: Any, weight: Any, following: Any) -> NDArray[Any]:
    """Arcs from columns, or single values that hold for all."""
    columns = np.broadcast_arrays(ilabel, olabel, weight, following)
    arcs = np.empty(columns[0].shape, ARC)
    for name, column in zip(("ilabel", "olabel", "weight", "next"), columns, strict=True):
        arcs[name] = column
    return arcs


def to_fst(graph: GraphArrays) -> Any:
    """The graph as OpenFst's ``StdConstFst``."""
    import kaldifst

    counts = np.bincount(graph.source_A, minlength=graph.num_states)
    states = np.zeros(graph.num_states, _STATE)
    states["final"], states["arcs"] = graph.final_S, counts
    states["first"] = np.cumsum(counts) - counts
    for field, label in (("in_eps", "ilabel"), ("out_eps", "olabel")):
        silent = graph.source_A[graph.arcs_A[label] == 0]
        states[field] = np.bincount(silent, minlength=graph.num_states)
    with tempfile.TemporaryDirectory(prefix="spikeline-graph-") as folder:
        file = Path(folder) / "graph.fst"
        with file.open("wb") as stream:
            stream.write(_header(graph.start, graph.num_states, len(graph.arcs_A)))
            stream.write(states.data)
            stream.write(np.ascontiguousarray(graph.arcs_A).data)
        return kaldifst.StdConstFst.read(str(file))


def to_mutable_fst(graph: GraphArrays) -> Any:
    """The graph as OpenFst's ``StdVectorFst``, which its algorithms change."""
    import kaldifst

    return kaldifst.StdVectorFst(to_fst(graph))


def from_fst(fst: Any) -> GraphArrays:
    """The arrays of one of OpenFst's graphs of any type."""
    import kaldifst

    with tempfile.TemporaryDirectory(prefix="spikeline-graph-") as folder:
        file = Path(folder) / "graph.fst"
        if not kaldifst.StdConstFst(fst).write(str(file)):
            raise OSError(f"a graph cannot be written to {folder}; is there room?")
        content = file.read_bytes()
    at = 4
    for _ in range(2):
        (length,) = struct.unpack_from("<i", content, at)
        at += 4 + length
    _, _, _, start, num_states, num_arcs = _HEADER.unpack_from(content, at)
    at += _HEADER.size
    states = np.frombuffer(content, _STATE, num_states, at)
    arcs = np.frombuffer(content, ARC, num_arcs, at + states.nbytes)
    source = np.repeat(np.arange(num_states, dtype=np.int32), states["arcs"])
    return GraphArrays(start, states["final"].copy(), source, arcs)


def _header(start: int, num_states: int, num_arcs: int) -> bytes:
    named = b"".join(struct.pack("<i", len(name)) + name for name in (b"const", b"standard"))
    numbers = _HEADER.pack(_VERSION, 0, _EXPANDED, start, num_states, num_arcs)
    return struct.pack("<i", _MAGIC) + named + numbers
