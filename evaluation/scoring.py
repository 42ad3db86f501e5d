"""Error rates with bootstrap confidence intervals.

An error rate is (substitutions + insertions + deletions) over reference symbols, both summed
over all utterances. Which rates apply follows from the kind of label:

- ``characters``: CER over all characters, the space between words included, and WER;
- ``phones``: PER;
- ``alignment``: PER, after every phone is replaced by what it is scored as (TIMIT: 48 to 39).

Where words are searched for (``evaluation.graph``) the WER is that of the search, against the
words of the transcript, whatever the labels are.

Symbols that are scored as nothing are removed from reference and hypothesis alike. Neighbours
that come to be equal by the replacement stay two symbols. Edit distances are kaldialign's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import kaldialign
import numpy as np
from numpy.typing import NDArray

from featurize.schema import LabelInventory, LabelKind
from featurize.stage import PipelineError

RateName = Literal["per", "wer", "cer"]
RATE_UNITS: dict[RateName, str] = {"per": "phone", "wer": "word", "cer": "character"}
"""What each rate counts; the order of tables."""

_RESAMPLED_VALUES = 2**22


def primary_rate(kind: LabelKind) -> RateName:
    """The rate over the symbols themselves, which every kind of label has."""
    return "cer" if kind == "characters" else "per"


@dataclass(frozen=True)
class Transcript:
    """A symbol sequence as it is scored."""

    symbols: tuple[str, ...]  # scored symbols
    # the words they spell, None where the labels have no word boundary
    words: tuple[str, ...] | None

    @property
    def text(self) -> str:
        """How a person reads it: text for characters, else symbols separated by spaces."""
        return " ".join(self.symbols if self.words is None else self.words)


def scored_transcript(label_ids: Sequence[int], labels: LabelInventory) -> Transcript:
    """Turn label ids into scored symbols and, for characters, words.

    Args:
        label_ids: ids into ``labels.symbols``.
        labels: the inventory, with what each symbol is scored as.
    """
    symbols: list[str] = []
    words: list[str] = []
    word: list[str] = []
    for label_id in label_ids:
        scored = labels.scored_as[label_id]
        if scored is not None:
            symbols.append(scored)
        if label_id == labels.word_boundary:
            words.append("".join(word))
            word.clear()
        elif scored is not None:
            word.append(scored)
    if labels.kind != "characters" or labels.word_boundary is None:
        return Transcript(tuple(symbols), None)
    words.append("".join(word))
    return Transcript(tuple(symbols), tuple(word for word in words if word))


@dataclass(frozen=True)
class EditCounts:
    """The errors of one utterance, and the length of its reference."""

    substitutions: int
    insertions: int
    deletions: int
    reference_length: int

    @property
    def errors(self) -> int:
        """All errors together."""
        return self.substitutions + self.insertions + self.deletions


def count_edits(reference: Sequence[str], hypothesis: Sequence[str]) -> EditCounts:
    """Fewest edits from reference to hypothesis; an empty reference makes all insertions.

    Example:
        >>> count_edits("the cat sat".split(), "a cat".split())
        EditCounts(substitutions=1, insertions=0, deletions=1, reference_length=3)
    """
    counts = kaldialign.edit_distance(list(reference), list(hypothesis))
    return EditCounts(counts["sub"], counts["ins"], counts["del"], len(reference))


@dataclass(frozen=True)
class WordScore:
    """The words of one utterance and their errors."""

    reference: tuple[str, ...]
    hypothesis: tuple[str, ...]
    edits: EditCounts


def score_words(reference: Sequence[str], hypothesis: Sequence[str]) -> WordScore:
    """Compare words."""
    return WordScore(tuple(reference), tuple(hypothesis), count_edits(reference, hypothesis))


@dataclass(frozen=True)
class Estimate:
    """A value and its 95% interval."""

    value: float
    low: float
    high: float


class Bootstrap:
    """Percentile bootstrap over utterances (Bisani & Ney 2004), the same draws for every model.

    Args:
        num_utterances: N.
        num_resamplings: how often N utterances are drawn with replacement.
        seed: seed of the draws; equal seeds compare models on equal draws.
    """

    def __init__(self, num_utterances: int, num_resamplings: int, seed: int) -> None:
        self.num_utterances = num_utterances
        self.num_resamplings = num_resamplings
        self.seed = seed

    def _resampled_sums(self, values_VN: NDArray[Any]) -> NDArray[np.float64]:
        """Sums of V quantities over each resampling, (num_resamplings, V), in bounded memory."""
        generator = np.random.default_rng(self.seed)
        uniform = np.full(self.num_utterances, 1.0 / self.num_utterances)
        block = max(1, _RESAMPLED_VALUES // self.num_utterances)
        sums = []
        for start in range(0, self.num_resamplings, block):
            size = min(block, self.num_resamplings - start)
            # How often each utterance is drawn says all: no index array is needed.
            times_drawn = generator.multinomial(self.num_utterances, uniform, size=size)
            sums.append(times_drawn.astype(np.float64) @ values_VN.T.astype(np.float64))
        return np.concatenate(sums)

    def error_rate(self, errors_N: NDArray[Any], lengths_N: NDArray[np.int64]) -> Estimate:
        """The error rate over all utterances, with its interval.

        Args:
            errors_N: errors of each utterance; fractions where they are means over seeds.
            lengths_N: reference symbols of each utterance; single ones may be 0.
        """
        total = int(lengths_N.sum())
        if total == 0:
            raise PipelineError(
                "no utterance has a reference symbol that is scored; check the subset's "
                "transcripts and the labels' scored_as"
            )
        sums = self._resampled_sums(np.stack([errors_N, lengths_N]))
        sums = sums[sums[:, 1] > 0]
        return _interval(float(errors_N.sum()) / total, sums[:, 0] / sums[:, 1])

    def difference(
        self, errors_N: NDArray[Any], other_errors_N: NDArray[Any], lengths_N: NDArray[np.int64]
    ) -> Estimate:
        """Error rate of one model minus another's, paired by utterance.

        Args:
            errors_N: errors of the model on each utterance.
            other_errors_N: errors of the model it is compared with, on the same utterances.
            lengths_N: reference symbols of each utterance.
        """
        return self.error_rate(errors_N - other_errors_N, lengths_N)


def _interval(value: float, resampled: NDArray[np.float64]) -> Estimate:
    low, high = np.percentile(resampled, [2.5, 97.5])
    # With few utterances the percentiles can miss the estimate by rounding; keep it inside.
    return Estimate(value, min(float(low), value), max(float(high), value))
