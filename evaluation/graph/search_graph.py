"""A graph to search in, with what its labels mean, as arrays that a file can hold.

Imports neither torch nor pyarrow: an exported recogniser carries such graphs.

Shape legend: S states, A arcs, O outputs, E emissions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evaluation.graph.arrays import ARC, GraphArrays, make_arcs
from featurize.stage import PipelineError, TypedConfig

Arrays = Mapping[str, NDArray[Any]]
_IMPOSSIBLE = np.float32(1e30)
"""A cost beyond all others, in files, which hold finite numbers alone."""
_MOST = 2**31 - 1
"""States and arcs are numbered by 32 bits."""
_MOST_SILENT = 1000
"""Arcs on a path of a sound graph that take no frame: a few, for shorter histories."""


class GraphSize(TypedConfig):
    """Sizes of a search graph's arrays."""

    start: int = Field(ge=0, description="State in which every search begins, from 0.")
    num_states: int = Field(ge=1, le=_MOST, description="S, states of the graph.")
    num_arcs: int = Field(ge=0, le=_MOST, description="A, arcs between them.")
    num_outputs: int = Field(ge=1, le=_MOST, description="O, scores per frame.")
    num_emissions: int = Field(ge=1, le=_MOST, description="E, what outputs belong to.")
    num_text_bytes: int = Field(
        ge=0, le=_MOST, description="Bytes of all words, with a line's end after each."
    )


@dataclass(frozen=True, eq=False)
class LoopedGraph:
    """A graph with a loop on every state that an emission leads to."""

    start: int  # first state
    final_S: NDArray[np.float32]  # costs of the language model, as are the weights of ``arcs_A``
    source_A: NDArray[np.int32]  # state that each arc leaves, ascending
    arcs_A: NDArray[Any]  # the arcs
    time_cost_A: NDArray[np.float32]  # of remaining in states and leaving them


@dataclass(frozen=True, eq=False)
class SearchGraph:
    """What may be found, and what each step costs before it is weighted."""

    # from emissions (from 1) to words or symbols (from 1); costs of the language model
    graph: GraphArrays
    words: tuple[str, ...]  # what each label is, the first being label 1
    # emission that each output belongs to; of several the best counts
    emission_O: NDArray[np.int32]
    log_prior_O: NDArray[np.float32]  # taken off the outputs' log-probabilities, weighted
    # cost of remaining in a state for a frame; infinite where the graph has the loop
    stay_E: NDArray[np.float32]
    leave_E: NDArray[np.float32]  # cost of leaving it

    @cached_property
    def looped(self) -> LoopedGraph:
        """The graph with the states' loops.

        A state that several emissions lead to gets another state for each of them, from which
        nothing but the loop and the way to it goes.
        """
        base, size = self.graph, len(self.stay_E) + 1
        stay = np.append(np.float32(np.inf), self.stay_E)
        leave = np.append(np.float32(0), self.leave_E)
        arcs = base.arcs_A.copy()
        # What leads to each state; nothing leads to the start.
        label_A = np.where(np.isfinite(stay)[arcs["ilabel"]], arcs["ilabel"], 0)
        arrivals = np.append(arcs["next"].astype(np.int64) * size + label_A, base.start * size)
        pairs, which = np.unique(arrivals, return_inverse=True)
        state, label = np.divmod(pairs, size)
        is_alone = np.bincount(state, minlength=base.num_states)[state] == 1
        is_new, has_loop = ~is_alone & (label > 0), label > 0
        place = state.copy()
        place[is_new] = base.num_states + np.arange(is_new.sum())
        arcs["next"] = place[which.ravel()[:-1]]
        loops = make_arcs(label[has_loop], 0, 0.0, place[has_loop])
        onward = make_arcs(np.zeros(is_new.sum()), 0, 0.0, state[is_new])
        source = np.concatenate([base.source_A, place[has_loop], place[is_new]])
        costs = [leave[arcs["ilabel"]], stay[loops["ilabel"]], np.zeros(len(onward), np.float32)]
        order = np.argsort(source, kind="stable")
        return LoopedGraph(
            start=base.start,
            final_S=np.append(base.final_S, np.full(is_new.sum(), np.inf)).astype(np.float32),
            source_A=source[order].astype(np.int32),
            arcs_A=np.concatenate([arcs, loops, onward])[order],
            time_cost_A=np.concatenate(costs)[order].astype(np.float32),
        )

    @property
    def size(self) -> GraphSize:
        """Sizes of what ``arrays`` gives."""
        return GraphSize(
            start=self.graph.start,
            num_states=self.graph.num_states,
            num_arcs=len(self.graph.arcs_A),
            num_outputs=len(self.emission_O),
            num_emissions=len(self.stay_E),
            num_text_bytes=len(self._text()),
        )

    def _text(self) -> bytes:
        return "".join(f"{word}\n" for word in self.words).encode()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The graph for a file."""
        graph = self.graph
        return {
            "final_costs": np.minimum(graph.final_S, _IMPOSSIBLE),
            "arcs_of_states": np.bincount(graph.source_A, minlength=graph.num_states).astype("i4"),
            "arcs": np.ascontiguousarray(graph.arcs_A).view("<i4").reshape(-1, 4),
            "emission_of_output": self.emission_O,
            "log_priors": self.log_prior_O,
            "stay_costs": np.minimum(self.stay_E, _IMPOSSIBLE),
            "leave_costs": self.leave_E,
            "words": np.frombuffer(self._text(), np.uint8),
        }


def expected_arrays(size: GraphSize) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of every array of a graph."""
    return {
        "final_costs": ("float32", (size.num_states,)),
        "arcs_of_states": ("int32", (size.num_states,)),
        "arcs": ("int32", (size.num_arcs, 4)),
        "emission_of_output": ("int32", (size.num_outputs,)),
        "log_priors": ("float32", (size.num_outputs,)),
        "stay_costs": ("float32", (size.num_emissions,)),
        "leave_costs": ("float32", (size.num_emissions,)),
        "words": ("uint8", (size.num_text_bytes,)),
    }


def from_arrays(size: GraphSize, arrays: Arrays, source: str) -> SearchGraph:
    """The graph that :meth:`SearchGraph.arrays` wrote, every number checked.

    The search itself, which is C++, checks nothing.
    """
    counts = arrays["arcs_of_states"]
    arcs = np.ascontiguousarray(arrays["arcs"]).view(ARC).reshape(-1)
    words = tuple(bytes(arrays["words"]).decode("utf-8", "replace").splitlines())
    emission_O = arrays["emission_of_output"]
    problem = None
    if int(counts.min(initial=0)) < 0 or int(counts.sum()) != len(arcs):
        problem = "its states have other arcs than there are"
    elif not 0 <= size.start < size.num_states or not _within(arcs["next"], size.num_states):
        problem = "an arc leads to no state"
    elif not _within(arcs["ilabel"], size.num_emissions + 1):
        problem = "an arc asks for an output that is not there"
    elif not _within(arcs["olabel"], len(words) + 1):
        problem = "an arc says a word that is not there"
    elif not _within(emission_O, size.num_emissions):
        problem = "an output belongs to no state"
    elif not bool(np.isfinite(arcs["weight"]).all()):
        problem = "a cost is not finite"
    elif _is_endless(np.repeat(np.arange(size.num_states), counts), arcs):
        problem = "a path returns to its state without a frame"
    if problem is not None:
        raise PipelineError(f"{source}: the search graph is damaged ({problem}); make it again")
    source_A = np.repeat(np.arange(size.num_states, dtype=np.int32), counts)
    final_S = _unbounded(arrays["final_costs"])
    return SearchGraph(
        graph=GraphArrays(size.start, final_S, source_A, arcs),
        words=words,
        emission_O=emission_O,
        log_prior_O=arrays["log_priors"],
        stay_E=_unbounded(arrays["stay_costs"]),
        leave_E=arrays["leave_costs"],
    )


def _is_endless(source_A: NDArray[np.intp], arcs_A: NDArray[Any]) -> bool:
    """Whether arcs that take no frame form a cycle, on which the search might never end."""
    silent_A = arcs_A["ilabel"] == 0
    source, target = source_A[silent_A], arcs_A["next"][silent_A]
    for _ in range(_MOST_SILENT):
        # What nothing silent leads to is on no cycle.
        is_entered = np.isin(source, target)
        if is_entered.all():
            break
        source, target = source[is_entered], target[is_entered]
    return len(source) > 0


def _within(numbers: NDArray[Any], end: int) -> bool:
    return int(numbers.min(initial=0)) >= 0 and int(numbers.max(initial=0)) < end


def _unbounded(costs: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(costs >= _IMPOSSIBLE, np.float32(np.inf), costs)
