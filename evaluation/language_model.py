"""The word language model of a search: read by KenLM, after every line was checked."""

import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.arpa import ArpaSummary, copy_checked
from evaluation.flashlight_library import require_flashlight
from evaluation.kneser_ney import UNKNOWN
from featurize.stage import Location, PipelineError

_LN_10 = math.log(10.0)


@dataclass(frozen=True)
class Perplexity:
    """How well a model foresees sentences.

    Attributes:
        value: per word and sentence end, words it lacks left out.
        num_words: all words of the sentences.
        num_unknown: words that it lacks.
    """

    value: float
    num_words: int
    num_unknown: int


class LanguageModel:
    """An n-gram model in memory.

    Args:
        file: an ARPA file, plain or gzip.

    Attributes:
        summary: its words and sizes.
        kenlm: flashlight's KenLM, whose word ids are places in ``summary.words``; the id after
            the last is the unknown word's.

    Raises:
        PipelineError: when the file is malformed, naming the line.
    """

    def __init__(self, file: Location) -> None:
        require_flashlight()
        from flashlight.lib.text.dictionary import Dictionary

        with tempfile.TemporaryDirectory(prefix="spikeline-arpa-") as folder:
            checked = Path(folder) / "checked.arpa"
            with checked.open("wb") as copy:
                self.summary: ArpaSummary = copy_checked(file, copy)
            # KenLM keeps no reference to the dictionary's memory, only its ids.
            self._dictionary = Dictionary([*self.summary.words, UNKNOWN])
            self.kenlm = _load(checked, self._dictionary, file)
        self.unknown_id = len(self.summary.words)
        self._ids: dict[str, int] = {}
        for number, word in enumerate(self.summary.words):
            self._ids.setdefault(word.upper(), number)

    @property
    def order(self) -> int:
        """Words of the longest n-gram."""
        return len(self.summary.num_ngrams)

    def log_probability(self, words: Sequence[str]) -> float:
        """Natural logarithm of a sentence's probability, of upper-case words and its end."""
        state, total = self.kenlm.start(False), 0.0
        for word in words:
            state, score = self.kenlm.score(state, self._ids.get(word, self.unknown_id))
            total += score
        return (total + float(self.kenlm.finish(state)[1])) * _LN_10

    def unigram_scores(self) -> list[float]:
        """Base-10 logarithm of each word's probability in no context, as the ids count."""
        state = self.kenlm.start(True)
        return [self.kenlm.score(state, number)[1] for number in range(self.unknown_id + 1)]

    def perplexity(self, sentences: Iterable[Sequence[str]]) -> Perplexity:
        """Perplexity over sentences of upper-case words."""
        total, num_scored, num_words, num_unknown = 0.0, 0, 0, 0
        for sentence in sentences:
            state = self.kenlm.start(False)
            for word in sentence:
                number = self._ids.get(word, self.unknown_id)
                state, score = self.kenlm.score(state, number)
                if number == self.unknown_id:
                    num_unknown += 1
                else:
                    total += score
            total += float(self.kenlm.finish(state)[1])
            num_words += len(sentence)
            num_scored += 1
        num_scored += num_words - num_unknown
        value = math.exp(-total * _LN_10 / num_scored) if num_scored else 1.0
        return Perplexity(value, num_words, num_unknown)


def _load(checked: Path, dictionary: Any, file: Location) -> Any:
    from flashlight.lib.text.decoder.kenlm import KenLM

    try:
        with _silent_stderr():
            return KenLM(str(checked), dictionary)
    except RuntimeError as error:
        # What passes our checks and not KenLM's own, which speak of its source code.
        reason = " ".join(str(error).split())[-200:]
        raise PipelineError(f"language model {file}: KenLM refuses it ({reason})") from error


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep KenLM's progress bar, which it writes to file descriptor 2, off the terminal."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)
