"""Speech in, text out: front end, engine and decoder behind ``feed`` and ``result``.

Imports neither torch nor pyarrow; the engine of a training run is made by
``evaluation.engine_of_run``.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.engine.counts import ExecutedCounts
from evaluation.engine.decoding import Floats, GraphDecoder, StreamDecoder, stream_decoder
from evaluation.engine.description import EngineDescription, FrontEndConfig, SymbolTable
from evaluation.engine.engine import Engine, Stream, log_softmax
from evaluation.engine.engine_file import EngineData, read_engine
from evaluation.engine.front_end import FrontEnd
from evaluation.engine.resampler import StreamResampler
from evaluation.engine.samples import checked_samples
from evaluation.graph.lattice import hypotheses
from evaluation.graph.search import GraphSearch
from featurize.stage import PipelineError

_BLOCK_S = 1.0
"""Longest piece of a stream worked on at once, so that memory does not grow with the piece."""


@dataclass(frozen=True)
class Transcription:
    """What was heard."""

    text: str  # words, or symbols separated by spaces where there are no words
    symbols: tuple[str, ...]  # those found, as an evaluation scores them
    words: tuple[str, ...] | None  # those that a word search found; None where none was made
    audio_s: float  # length of what was fed
    busy_s: float  # time spent on it
    executed: ExecutedCounts  # operations and memory
    # Where several hypotheses were asked for: text and score of each, the best first; each word or
    # symbol of the best, and how sure it is, from 0 to 1.
    nbest: tuple[tuple[str, float], ...] = ()
    confidences: tuple[tuple[str, float], ...] = ()

    @property
    def real_time_factor(self) -> float:
        """Time spent per time of audio."""
        return self.busy_s / self.audio_s if self.audio_s else 0.0

    @property
    def multiplications_per_s(self) -> float:
        """Multiplications of the matrix terms per second of audio."""
        return self.executed.multiplications / self.audio_s if self.audio_s else 0.0

    @property
    def operations_per_s(self) -> float:
        """Multiplications and additions of the network per second of audio."""
        return self.executed.operations / self.audio_s if self.audio_s else 0.0


def scored_symbols(ids: Sequence[int], table: SymbolTable) -> tuple[str, ...]:
    """Symbols as an evaluation scores them; those that it does not score are left out."""
    scored = table.scored_as or table.symbols
    return tuple(symbol for symbol in (scored[i] for i in ids) if symbol is not None)


def spell(symbols: Sequence[str], table: SymbolTable) -> str:
    """Symbols as a person reads them."""
    if table.kind == "characters" and table.word_boundary is not None:
        return " ".join("".join(symbols).split())
    return " ".join(symbols)


class Transcriber:
    """Listens to one stream of samples after the other.

    Args:
        data: an engine that listens to samples.
        sample_rate_hz: rate of the samples fed; the engine's own where not given.
        find_words: take the engine's search for words where it has one; the text is what it
            finds. Else it is of symbols.

    Raises:
        PipelineError: when the engine reads frames only, has no search for its symbols, or the
            rate cannot be converted.
    """

    def __init__(
        self, data: EngineData, sample_rate_hz: int | None = None, find_words: bool = True
    ) -> None:
        front_end = data.description.front_end
        if front_end is None:
            raise PipelineError(
                "this engine reads frames, not samples; export it from a training run whose "
                "feature set is still there"
            )
        self._data = data
        self._symbol_search = data.search("symbols")
        self._word_search = data.search("words") if find_words else None
        self._engine = Engine(data)
        self._front_end = FrontEnd(front_end)
        self.sample_rate_hz = sample_rate_hz or front_end.sample_rate_hz
        self._watch: Callable[[Stream], None] | None = None
        self._num_hypotheses = 0
        self._begin()

    @classmethod
    def from_file(
        cls, path: str | Path, *, sample_rate_hz: int | None = None, find_words: bool = True
    ) -> "Transcriber":
        """Load an engine file; needs no torch.

        Raises:
            PipelineError: when it is damaged or of another version.
        """
        return cls(read_engine(path), sample_rate_hz, find_words)

    @property
    def description(self) -> EngineDescription:
        """Of the engine."""
        return self._data.description

    @property
    def front_end(self) -> FrontEndConfig:
        """How its frames are made."""
        return self._front_end.config

    def another(
        self,
        sample_rate_hz: int,
        watch: Callable[[Stream], None] | None = None,
        front_end: FrontEndConfig | None = None,
        num_hypotheses: int = 0,
    ) -> "Transcriber":
        """A transcriber of another stream at the same time, with the same engine and searches.

        Args:
            watch: called after every frame of the network with its stream, to look at its spikes.
            front_end: how its frames are made, where its speaker's statistics are known; as of
                this one where not given.
            num_hypotheses: given with the result; its scores are kept until then.
        """
        other = copy.copy(self)
        other._front_end = FrontEnd(front_end or self.front_end)
        other.sample_rate_hz, other._watch = sample_rate_hz, watch
        other._num_hypotheses = num_hypotheses
        other._begin()
        return other

    def _begin(self) -> None:
        rate = self._front_end.config.sample_rate_hz
        self._resampler = StreamResampler(self.sample_rate_hz, rate)
        self._front_end.reset()
        self._stream = self._engine.stream()
        self._decoder = stream_decoder(self._data, self._symbol_search)
        self._words: StreamDecoder | None = None
        if self._word_search is not None:
            self._words = GraphDecoder(self._word_search)
        # A delayed network's first scores name nothing.
        self._num_unnamed = self._data.description.target_delay
        self._kept: list[Floats] = []
        self._num_samples = 0
        self._busy_s = 0.0

    def feed(self, samples: NDArray[np.floating]) -> None:
        """Listen to the next samples of the stream, any number of them.

        Args:
            samples: (n,) mono, in [-1, 1]; clipped to that.

        Raises:
            PipelineError: when they are not one channel of finite floating-point numbers; the
                stream is as before.
        """
        started = time.perf_counter()
        samples = checked_samples(samples)
        block = max(1, round(_BLOCK_S * self.sample_rate_hz))
        for start in range(0, len(samples), block):
            piece = np.clip(samples[start : start + block], -1.0, 1.0).astype(np.float32)
            self._advance(self._front_end.feed(self._resampler.feed(piece)))
        self._num_samples += len(samples)
        self._busy_s += time.perf_counter() - started

    def _advance(self, frames_TF: Floats) -> None:
        if len(frames_TF):
            scores_TO = self._scores(frames_TF)
            scores_TO = scores_TO[self._num_unnamed :]
            self._num_unnamed = max(0, self._num_unnamed - len(frames_TF))
            if self._num_hypotheses:
                self._kept.append(scores_TO)
            self._decoder.feed(scores_TO)
            if self._words is not None:
                self._words.feed(scores_TO)

    def _scores(self, frames_TF: Floats) -> Floats:
        if self._watch is None:
            return self._engine.advance(frames_TF, self._stream)
        scores = []
        for start in range(len(frames_TF)):
            scores.append(self._engine.advance(frames_TF[start : start + 1], self._stream))
            self._watch(self._stream)
        return np.concatenate(scores)

    def so_far(self) -> Transcription:
        """What was heard up to now; later samples may change the end of its text.

        Where there are words its symbols are left out: each is a way back through all frames.
        """
        if self._words is None:
            return self._heard(self._decoder.symbols(), None)
        return self._heard([], self._words.symbols())

    def result(self) -> Transcription:
        """End the stream and begin another; what was heard of the old one."""
        started = time.perf_counter()
        self._advance(self._front_end.feed(self._resampler.finish()))
        self._advance(self._front_end.finish())
        symbols = self._decoder.finish()
        found = None if self._words is None else self._words.finish()
        self._busy_s += time.perf_counter() - started
        heard = self._heard(symbols, found)
        if self._num_hypotheses:
            heard = self._with_several(heard)
        self._begin()
        return heard

    def _with_several(self, heard: Transcription) -> Transcription:
        search = self._word_search or self._symbol_search
        if search is None:
            raise PipelineError(
                "several hypotheses need a search, and this model takes the best output of each "
                "frame; evaluate it with decoder=viterbi, or with words"
            )
        description = self._data.description
        none_TO = np.zeros((0, description.num_outputs), np.float32)
        scores_TO = np.concatenate([*self._kept, none_TO])
        several = hypotheses(
            search, log_softmax(scores_TO), self._num_hypotheses, description.frame_shift_s
        )
        sure = [
            (part, confidence)
            for label, confidence in zip(several.found[0].labels, several.confidences, strict=True)
            for part in self._written([label], search)
        ]
        nbest = [(self._text(one.labels, search), one.score) for one in several.found]
        best = self._written(several.found[0].labels, search)
        is_of_words = search is self._word_search
        return replace(
            heard,
            text=nbest[0][0],
            words=best if is_of_words else heard.words,
            symbols=heard.symbols if is_of_words else best,
            nbest=tuple(nbest),
            confidences=tuple(sure),
        )

    def _written(self, labels: Sequence[int], search: GraphSearch | None) -> tuple[str, ...]:
        """Words, where a search for these found the labels, or symbols."""
        if search is not None and search is self._word_search:
            return search.texts(list(labels))
        return scored_symbols(labels, self._data.description.labels)

    def _text(self, labels: Sequence[int], search: GraphSearch | None) -> str:
        written = self._written(labels, search)
        if search is not None and search is self._word_search:
            return " ".join(written)
        return spell(written, self._data.description.labels)

    def _heard(self, symbols: list[int], found: list[int] | None) -> Transcription:
        best = symbols if found is None else found
        search = self._symbol_search if found is None else self._word_search
        return Transcription(
            text=self._text(best, search),
            symbols=self._written(symbols, self._symbol_search),
            words=None if found is None else self._written(found, search),
            audio_s=self._num_samples / self.sample_rate_hz,
            busy_s=self._busy_s,
            executed=self._stream.executed,
        )
