"""Decoding while the scores come in, with bounded memory beside the symbols themselves.

Shape legend: T frames, O outputs, S symbols; CTC has O = S + 1 with the blank last.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evaluation.config import ViterbiConfig
from evaluation.engine.engine import log_softmax
from evaluation.engine.engine_file import EngineData
from evaluation.viterbi import PhoneGraph, build_graph

Floats = NDArray[np.float32]

_LOOK_BACK_EVERY = 64
_MAX_UNDECIDED = 4096
NEVER = -1e30
"""Log-probability of what cannot be, in files, which hold finite numbers alone."""
_TINY = np.float32(1e-30)


class StreamDecoder(Protocol):
    """Turns scores into symbol ids as they come."""

    def feed(self, scores_TO: Floats) -> None:
        """Take in the scores of some frames, before the softmax."""
        ...

    def symbols(self) -> list[int]:
        """The best hypothesis so far."""
        ...

    def finish(self) -> list[int]:
        """The hypothesis at the end of the stream."""
        ...


class WordHypothesis(Protocol):
    """Words that were found."""

    @property
    def words(self) -> tuple[str, ...]:
        """In order."""
        ...


class WordListener(Protocol):
    """Turns log-probabilities into words as they come; ``evaluation.word_search.WordStream``."""

    def accept(self, log_probs_TO: Floats) -> tuple[str, ...]:
        """Take in some frames; the best words so far."""
        ...

    def finish(self) -> WordHypothesis:
        """The words at the end of the stream."""
        ...


class WordFinder(Protocol):
    """What can listen for words, one stream after the other; ``evaluation.word_search``.

    A protocol, so that a recogniser of symbols imports no search for words.
    """

    def stream(self) -> WordListener:
        """A new stream."""
        ...


class GreedyDecoder:
    """CTC: the best output of each frame, repeats collapsed, blanks removed.

    Args:
        num_outputs: O; the blank is the last.
    """

    def __init__(self, num_outputs: int) -> None:
        self._blank = num_outputs - 1
        self._last = -1
        self._ids: list[int] = []

    def feed(self, scores_TO: Floats) -> None:
        """See ``StreamDecoder``."""
        for best in scores_TO.argmax(axis=1).tolist():
            if best not in (self._last, self._blank):
                self._ids.append(best)
            self._last = best

    def symbols(self) -> list[int]:
        """See ``StreamDecoder``."""
        return list(self._ids)

    def finish(self) -> list[int]:
        """See ``StreamDecoder``."""
        return list(self._ids)


class StreamViterbi:
    """Best phone sequence of a frame model, as ``evaluation.viterbi.best_path`` finds it.

    What all surviving paths share is settled and its trace forgotten. Should they share nothing
    for some thousands of frames, the best path is settled up to half way: only then can the
    result differ from a search over the whole.

    Args:
        graph: the search graph.
        prior_scale: share of the log prior taken off.
        parts_per_phone: states of the graph that each phone has, in order.
        part_of_output: state of the graph of each output, (O,); outputs of one state are added
            up. None where they are the states.
    """

    def __init__(
        self,
        graph: PhoneGraph,
        prior_scale: float,
        parts_per_phone: int = 1,
        part_of_output: NDArray[np.int32] | None = None,
    ) -> None:
        self._graph = graph
        self._parts_per_phone = parts_per_phone
        self._belongs_OS: Floats | None = None
        if part_of_output is not None:
            self._belongs_OS = np.zeros((len(part_of_output), len(graph.prior_S)), np.float32)
            self._belongs_OS[np.arange(len(part_of_output)), part_of_output] = 1.0
        self._prior = prior_scale * graph.prior_S
        self._columns = np.arange(len(graph.prior_S))
        # To the row's state from the column's: the search for the best origin reads whole rows.
        self._from_SS = np.ascontiguousarray(graph.transition_SS.T)
        self._best_S: NDArray[np.float64] | None = None
        self._came_from: list[NDArray[np.int64]] = []
        self._settled: list[int] = []
        self._last = -1  # state of the last frame that is settled

    def feed(self, scores_TO: Floats) -> None:
        """See ``StreamDecoder``."""
        log_probs_TS = log_softmax(scores_TO)
        if self._belongs_OS is not None:
            log_probs_TS = np.log(np.maximum(np.exp(log_probs_TS) @ self._belongs_OS, _TINY))
        for emission_S in log_probs_TS.astype(np.float64) - self._prior:
            if self._best_S is None:
                self._best_S = self._graph.start_S + emission_S
                continue
            arriving_SS = self._from_SS + self._best_S
            origin_S = arriving_SS.argmax(1)
            self._came_from.append(origin_S)
            self._best_S = arriving_SS[self._columns, origin_S] + emission_S
            if len(self._came_from) % _LOOK_BACK_EVERY == 0:
                self._settle()

    def _settle(self) -> None:
        """Keep what every surviving path agrees on."""
        survivors = self._columns
        for t in range(len(self._came_from) - 1, -1, -1):
            survivors = self._came_from[t][survivors]
            if (survivors == survivors[0]).all():
                self._keep(self._trace(int(survivors[0]), t), t)
                return
        if len(self._came_from) > _MAX_UNDECIDED:
            half = len(self._came_from) // 2
            state = int(np.asarray(self._best_S).argmax())
            for t in range(len(self._came_from) - 1, half - 1, -1):
                state = int(self._came_from[t][state])
            self._keep(self._trace(state, half), half)

    def _trace(self, state: int, t: int) -> list[int]:
        """The path that ends in a state at frame t of those not settled, without that frame."""
        path = []
        for origin_S in reversed(self._came_from[:t]):
            state = int(origin_S[state])
            path.append(state)
        return path[::-1]

    def _keep(self, path: list[int], t: int) -> None:
        self._settled += self._phones(path)
        self._last = path[-1] if path else self._last
        del self._came_from[:t]

    def _ending(self, score_S: NDArray[np.float64] | None) -> list[int]:
        if score_S is None or score_S.max() <= NEVER / 2:
            return []  # nothing came, or less than a phone needs
        state = int(score_S.argmax())
        return self._settled + self._phones([*self._trace(state, len(self._came_from)), state])

    def _phones(self, path: list[int]) -> list[int]:
        """The phones that a path enters, going on from what is settled."""
        entered, last = [], self._last
        for state in path:
            phone, part = divmod(state, self._parts_per_phone)
            # Going back within a phone is entering it anew.
            if (
                last < 0
                or phone != last // self._parts_per_phone
                or (part < last % self._parts_per_phone)
            ):
                entered.append(phone)
            last = state
        return entered

    def symbols(self) -> list[int]:
        """See ``StreamDecoder``."""
        return self._ending(self._best_S)

    def finish(self) -> list[int]:
        """See ``StreamDecoder``."""
        return self._ending(None if self._best_S is None else self._best_S + self._graph.end_S)


def stream_decoder(data: EngineData) -> StreamDecoder:
    """The decoder of an engine: greedy for CTC, a phone search with its defaults for frames.

    Of senones it searches the parts of phones that they are of, in any context: what a stream may
    remember is too little for a search through triphones, which an evaluation makes. That costs
    errors: 50.7% in place of 47.0% on 26 utterances of a v2 on Mini LibriSpeech.
    """
    description, config = data.description, ViterbiConfig()
    if description.objective == "ctc":
        return GreedyDecoder(description.num_outputs)
    if description.states_per_phone is not None:
        start, change, end, prior = (
            data.arrays[f"part_{name}"].astype(np.float64)
            for name in ("starts", "changes", "ends", "priors")
        )
        return StreamViterbi(
            PhoneGraph(start, change, end, prior),
            config.prior_scale,
            description.states_per_phone,
            data.arrays["part_of_output"],
        )
    graph = build_graph(data.arrays["bigram_counts"], data.arrays["frame_counts"], config)
    return StreamViterbi(graph, config.prior_scale)
