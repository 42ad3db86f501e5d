"""Decoding while the scores come in, with bounded memory beside the symbols themselves.

Shape legend: T frames, O outputs; of CTC the blank is the last.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evaluation.engine.engine import log_softmax
from evaluation.engine.engine_file import EngineData
from evaluation.graph.search import GraphSearch
from featurize.stage import PipelineError

Floats = NDArray[np.float32]


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


class GraphDecoder:
    """A search through a graph, as an evaluation makes it of whole utterances.

    Args:
        search: the search; what it finds are symbols or words.
    """

    def __init__(self, search: GraphSearch) -> None:
        self._stream = search.stream()

    def feed(self, scores_TO: Floats) -> None:
        """See ``StreamDecoder``."""
        self._stream.step(log_softmax(scores_TO))

    def symbols(self) -> list[int]:
        """See ``StreamDecoder``."""
        return list(self._stream.labels())

    def finish(self) -> list[int]:
        """See ``StreamDecoder``."""
        return list(self._stream.end().labels)


def stream_decoder(data: EngineData, search: GraphSearch | None) -> StreamDecoder:
    """The decoder of an engine's symbols.

    Args:
        search: its search for symbols; None takes the best outputs, of CTC alone.
    """
    if search is not None:
        return GraphDecoder(search)
    if data.description.objective == "ctc":
        return GreedyDecoder(data.description.num_outputs)
    raise PipelineError(
        "this engine has no search for the symbols of its frames; export it again from its "
        "training run"
    )
