"""The best way through a search graph for the scores of an utterance (Viterbi 1967).

A path with words (or symbols) W through the outputs of a recogniser scores::

    sum over frames of  log p(o | x_t) - prior_scale log p(o)  and the states' durations
    + lm_weight log p(W) + word_score |W|

The weights are put on a graph that is made without them, so that choosing them makes no graph
anew. What is far behind the best path is given up (kaldi-decoder's ``FasterDecoder``). The symbols
of a CTC model may be scored by all of their paths together (``evaluation.graph.prefix``).

Imports neither torch nor pyarrow.

Shape legend: T frames, O outputs, E emissions, A arcs.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evaluation.graph.arrays import GraphArrays, to_fst
from evaluation.graph.prefix import Doubles, PrefixBeam, symbol_scores
from evaluation.graph.search_graph import SearchGraph
from featurize.stage import TypedConfig

Floats = NDArray[np.float32]

# A stream forgets its past where it pauses, once it is this long, and anywhere beyond the second.
MAY_FORGET_FRAMES, _MUST_FORGET_FRAMES = 6000, 20000
_PAUSE_FRAMES = 10
_LOOK_EVERY_FRAMES = 100


class SearchWeights(TypedConfig):
    """How much the parts of a path's score count, and how wide the search is."""

    lm_weight: float = Field(ge=0, le=100, description="Weight of the language model.")
    word_score: float = Field(ge=-100, le=100, description="Added for every word or symbol.")
    prior_scale: float = Field(ge=0, le=10, description="Share of the log prior taken off.")
    beam: float = Field(gt=0, le=1e4, description="Paths this far behind the best are given up.")
    max_active: int = Field(ge=10, le=1_000_000, description="Paths kept after a frame at most.")
    max_prefixes: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="CTC: symbol sequences kept after a frame at most, each scored by all of its "
        "paths; empty to score it by the best one.",
    )


@dataclass(frozen=True)
class Found:
    """What was found."""

    labels: tuple[int, ...]  # words or symbols, from 0
    score: float  # of the path, as the module says


class UtteranceSearch(Protocol):
    """A search through one utterance, which comes piece by piece."""

    def step(self, log_probs_TO: Floats) -> None:
        """Take in the log-probabilities of some frames; may be none."""
        ...

    def labels(self) -> tuple[int, ...]:
        """The best words or symbols so far, which later frames may change."""
        ...

    def end(self) -> Found:
        """End the utterance."""
        ...


class GraphSearch:
    """Finds the best words or symbols of an utterance.

    Args:
        weights: of the parts of a score.
    """

    def __init__(self, graph: SearchGraph, weights: SearchWeights) -> None:
        self.graph = graph
        self.weights = weights
        self._taken_off_O = (weights.prior_scale * graph.log_prior_O).astype(np.float32)
        num_outputs, num_emissions = len(graph.emission_O), len(graph.stay_E)
        self._is_whole = num_outputs == num_emissions and bool(
            (graph.emission_O == np.arange(num_outputs)).all()
        )

    @cached_property
    def fst(self) -> Any:
        """The weighted graph, as OpenFst has it."""
        return to_fst(weighted(self.graph, self.weights))

    def __call__(self, log_probs_TO: Floats) -> list[int]:
        """Words or symbols of a whole utterance."""
        return list(self.find(log_probs_TO).labels)

    def find(self, log_probs_TO: Floats) -> Found:
        """Words or symbols of a whole utterance, and their score.

        Args:
            log_probs_TO: log-probabilities of its valid frames.
        """
        stream = self.stream()
        stream.step(log_probs_TO)
        return stream.end()

    def texts(self, labels: tuple[int, ...] | list[int]) -> tuple[str, ...]:
        """What labels stand for."""
        return tuple(self.graph.words[label] for label in labels)

    def stream(self) -> UtteranceSearch:
        """A search that is given an utterance piece by piece."""
        return SearchStream(self) if self.weights.max_prefixes is None else PrefixStream(self)

    @cached_property
    def symbol_scores(self) -> tuple[Doubles, Doubles]:
        """What may follow what, weighted, where the graph is of a CTC model's symbols."""
        return symbol_scores(weighted(self.graph, self.weights))

    def emissions(self, log_probs_TO: Floats) -> Floats:
        """Scores (T, E) of what the graph asks for."""
        scores_TO = np.asarray(log_probs_TO, np.float32) - self._taken_off_O
        if self._is_whole:
            return np.ascontiguousarray(scores_TO)
        scores_TE = np.full((len(scores_TO), len(self.graph.stay_E)), -1e10, np.float32)
        for output, emission in enumerate(self.graph.emission_O):
            np.maximum(scores_TE[:, emission], scores_TO[:, output], out=scores_TE[:, emission])
        return scores_TE


class SearchStream:
    """The search through one utterance as it comes.

    A stream of some minutes is decided for good at its next pause, so that memory stays bounded;
    what follows is searched as an utterance of its own. Where that is depends on its frames
    alone, not on the pieces in which they come.

    Args:
        search: the search, whose graph is shared.
        max_active: paths kept after a frame at most; None for those of the search's weights.
    """

    def __init__(self, search: GraphSearch, max_active: int | None = None) -> None:
        self._search = search
        self._max_active = search.weights.max_active if max_active is None else max_active
        self._decided: tuple[int, ...] = ()
        self._score = 0.0
        self._begin()

    def _begin(self) -> None:
        from kaldi_decoder import FasterDecoder, FasterDecoderOptions

        weights = self._search.weights
        options = FasterDecoderOptions(beam=weights.beam, max_active=self._max_active)
        self._decoder = FasterDecoder(self._search.fst, options)
        self._decoder.init_decoding()
        self._num_frames = 0

    def step(self, log_probs_TO: Floats) -> None:
        """See ``UtteranceSearch``."""
        from kaldi_decoder import DecodableCtc

        start = 0
        while start < len(log_probs_TO):
            end = start + _LOOK_EVERY_FRAMES - self._num_frames % _LOOK_EVERY_FRAMES
            piece_TE = self._search.emissions(log_probs_TO[start:end])
            self._decoder.advance_decoding(DecodableCtc(piece_TE, self._num_frames))
            start, self._num_frames = end, self._num_frames + len(piece_TE)
            looks = self._num_frames % _LOOK_EVERY_FRAMES == 0
            if looks and self._num_frames > MAY_FORGET_FRAMES:
                self._forget()

    def labels(self) -> tuple[int, ...]:
        """See ``UtteranceSearch``."""
        return (*self._decided, *self._best(use_final=False).labels)

    def end(self) -> Found:
        """See ``UtteranceSearch``."""
        best = self._best(use_final=True)
        return Found((*self._decided, *best.labels), self._score + best.score)

    def path(self) -> Any:
        """The best way through the graph, as kaldifst has it; None where there is none."""
        if self._num_frames == 0:
            return None
        succeeded, lattice = self._decoder.get_best_path(True)
        return lattice if succeeded else None

    def _forget(self) -> None:
        path = self._path(use_final=False)
        if path is None:
            return
        emissions = path[0][-_PAUSE_FRAMES:]
        pauses = len(set(emissions)) == 1 and len(emissions) == _PAUSE_FRAMES
        if pauses or self._num_frames > _MUST_FORGET_FRAMES:
            self._decided += tuple(label - 1 for label in path[1])
            self._score += path[2]
            self._begin()

    def _best(self, *, use_final: bool) -> Found:
        path = self._path(use_final=use_final)
        if path is None:  # nothing was heard, or fewer frames than anything takes
            return Found((), 0.0 if self._num_frames == 0 else -np.inf)
        return Found(tuple(label - 1 for label in path[1]), path[2])

    def _path(self, *, use_final: bool) -> tuple[list[int], list[int], float] | None:
        import kaldifst

        if self._num_frames == 0:
            return None
        succeeded, lattice = self._decoder.get_best_path(use_final)
        if not succeeded:
            return None
        _, emissions, labels, weight = kaldifst.get_linear_symbol_sequence(lattice)
        return emissions, labels, -(weight.value1 + weight.value2)


class PrefixStream:
    """The prefix beam search through one utterance as it comes.

    Args:
        search: the search, in a graph of a CTC model's symbols.
    """

    def __init__(self, search: GraphSearch) -> None:
        weights = search.weights
        assert weights.max_prefixes is not None
        self._search = search
        self._beam = PrefixBeam(*search.symbol_scores, weights.beam, weights.max_prefixes)

    def step(self, log_probs_TO: Floats) -> None:
        """See ``UtteranceSearch``."""
        self._beam.advance(self._search.emissions(log_probs_TO))

    def labels(self) -> tuple[int, ...]:
        """See ``UtteranceSearch``."""
        return self._beam.best(use_final=False)[0]

    def end(self) -> Found:
        """See ``UtteranceSearch``."""
        return Found(*self._beam.best(use_final=True))

    def ranked(self) -> list[Found]:
        """All sequences that are kept once the utterance has ended, the best first."""
        return [Found(*one) for one in self._beam.ranked()]


def weighted(graph: SearchGraph, weights: SearchWeights) -> GraphArrays:
    """The graph with its weights and with the states' loops."""
    looped = graph.looped
    arcs = looped.arcs_A.copy()
    arcs["weight"] *= np.float32(weights.lm_weight)
    arcs["weight"] += looped.time_cost_A
    arcs["weight"] -= np.float32(weights.word_score) * (arcs["olabel"] != 0)
    final_S = looped.final_S.copy()
    final_S[np.isfinite(final_S)] *= np.float32(weights.lm_weight)
    return GraphArrays(looped.start, final_S, looped.source_A, arcs)
