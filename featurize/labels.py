"""From transcripts, pronunciations and alignments to target ids.

Three kinds of labels. ``characters``: the transcript, letter by letter. ``phones``: through the
lexicon, or for TIMIT from the ``.PHN`` file, whose phones were heard rather than looked up.
``alignment``: from ``.PHN`` too, with the id of each frame as well. Equal neighbours are merged
in sequences from ``.PHN``: after folding, two silences in a row are one silence.

Shape legend: T rows of features.
"""

import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from featurize.corpora.entry import CorpusEntry, file_of
from featurize.featurize_config import FeaturizeConfig
from featurize.lexicon import UNKNOWN_PHONE, Lexicon, load_lexicon, pronounce
from featurize.phones import (
    CMUDICT_39,
    PHONE_48_TO_39,
    TIMIT_48,
    fold_segments_to_48,
    read_alignment,
    rescale_segments,
)
from featurize.reject_reasons import RejectedUtterance
from featurize.schema import FeaturizeManifest, LabelInventory
from featurize.stage import Location, PipelineError

CHARACTERS: tuple[str, ...] = (" ", "'", *string.ascii_uppercase)
_SHOWN_WORDS = 8


@dataclass(frozen=True)
class Labels:
    """Targets of one utterance."""

    ids: NDArray[np.int32]  # (num_labels,) int32
    alignment: NDArray[np.int32] | None = None  # (T,) int32, or None
    # words the lexicon lacks, with their number
    out_of_vocabulary: Counter[str] = field(default_factory=Counter)
    end_sample: int | None = None  # where a ``.PHN`` ends, at the configured rate; None without one


class Labeller(Protocol):
    """Gives an utterance its targets."""

    inventory: LabelInventory

    def __call__(
        self, entry: CorpusEntry, root: Location, centres: NDArray[np.int64], audio_rate_hz: int
    ) -> Labels:
        """Targets of one utterance.

        Args:
            centres: (T,) sample at the centre of each row, at the configured rate.
            audio_rate_hz: rate of the audio file, which ``.PHN`` counts samples at.

        Raises:
            RejectedUtterance: when it cannot be labelled.
        """
        ...


def labeller(config: FeaturizeConfig) -> Labeller:
    """The labeller a configuration asks for."""
    if config.labels == "characters":
        return CharacterLabeller()
    if config.labels == "alignment" or config.corpus == "timit":
        return SegmentLabeller(config)
    return LexiconLabeller(load_lexicon(config.lexicon), config)


def lexicon_labeller(manifest: FeaturizeManifest) -> "LexiconLabeller | None":
    """What gave a feature set its phone labels; None where they were heard (TIMIT)."""
    if manifest.labels.kind != "phones":
        raise PipelineError(
            f"this feature set has {manifest.labels.kind} labels, not phones; featurize with "
            "labels=phones"
        )
    label = labeller(FeaturizeConfig.model_validate(manifest.config))
    return label if isinstance(label, LexiconLabeller) else None


def frames_needed(ids: Sequence[int] | NDArray[np.int32]) -> int:
    """Fewest frames CTC can spell labels in: one each, and a blank between equal neighbours."""
    labels = np.asarray(ids)
    return len(labels) + int((labels[1:] == labels[:-1]).sum())


def _require_alphabet(text: str) -> None:
    """Refuse what no rule can spell or pronounce; a lexicon may hold words with more letters."""
    for symbol in text:
        if symbol not in CHARACTERS:
            raise RejectedUtterance("unknown_symbol", f"{symbol!r} in the transcript")


class CharacterLabeller:
    """Upper-case letters, the apostrophe and the space between words."""

    def __init__(self) -> None:
        """Prepare the table of ids."""
        self.inventory = LabelInventory(
            kind="characters",
            symbols=CHARACTERS,
            scored_as=CHARACTERS,
            word_boundary=CHARACTERS.index(" "),
        )
        self._ids = {symbol: i for i, symbol in enumerate(CHARACTERS)}

    def __call__(
        self, entry: CorpusEntry, root: Location, centres: NDArray[np.int64], audio_rate_hz: int
    ) -> Labels:
        """Spell the transcript; runs of white space count as one space."""
        text = " ".join(entry.text.upper().split())
        if not text:
            raise RejectedUtterance("empty_transcript", "no characters")
        _require_alphabet(text)
        return Labels(np.array([self._ids[symbol] for symbol in text], dtype=np.int32))


class LexiconLabeller:
    """Phones of each word in turn, without silence between words."""

    def __init__(self, lexicon: Lexicon, config: FeaturizeConfig) -> None:
        """Prepare the table of ids; the unknown phone exists only where the rule uses it."""
        self.lexicon = lexicon
        self._rule = config.out_of_vocabulary
        symbols = (*CMUDICT_39, UNKNOWN_PHONE) if self._rule == "unknown" else CMUDICT_39
        self.inventory = LabelInventory(kind="phones", symbols=symbols, scored_as=symbols)
        self._ids = {symbol: i for i, symbol in enumerate(symbols)}

    def pronunciation(self, word: str) -> tuple[list[int], bool]:
        """Phone ids of an upper-case word, and whether the lexicon lacked it.

        Raises:
            RejectedUtterance: ``unknown_symbol``, by the configured rule.
        """
        phones, is_missing = pronounce(self.lexicon, word, self._rule)
        if is_missing:
            _require_alphabet(word)
        return self.ids(phones), is_missing

    def phones(self, word: str) -> tuple[str, ...]:
        """Phones of an upper-case word, as its labels have them."""
        return pronounce(self.lexicon, word, self._rule)[0]

    def ids(self, phones: Sequence[str]) -> list[int]:
        """Their ids."""
        return [self._ids[phone] for phone in phones]

    def __call__(
        self, entry: CorpusEntry, root: Location, centres: NDArray[np.int64], audio_rate_hz: int
    ) -> Labels:
        """Look every word up; missing ones are counted and handled by the configured rule."""
        ids: list[int] = []
        missing: Counter[str] = Counter()
        for word in entry.text.upper().split():
            phones, is_missing = self.pronunciation(word)
            ids.extend(phones)
            missing[word] += is_missing
        if not ids:
            raise RejectedUtterance("empty_transcript", "no words")
        return Labels(np.array(ids, dtype=np.int32), out_of_vocabulary=+missing)


class SegmentLabeller:
    """TIMIT's 48 training phones from ``.PHN`` segments, scored as 39 (Lee and Hon, 1989)."""

    def __init__(self, config: FeaturizeConfig) -> None:
        """Prepare the table of ids."""
        self._with_alignment = config.labels == "alignment"
        self._sample_rate_hz = config.sample_rate_hz
        self.inventory = LabelInventory(
            kind=config.labels,
            symbols=TIMIT_48,
            scored_as=tuple(PHONE_48_TO_39[phone] for phone in TIMIT_48),
        )
        self._ids = {symbol: i for i, symbol in enumerate(TIMIT_48)}

    def __call__(
        self, entry: CorpusEntry, root: Location, centres: NDArray[np.int64], audio_rate_hz: int
    ) -> Labels:
        """Fold the segments to ids; with ``alignment``, also read them off at the row centres."""
        if entry.alignment is None:
            raise RejectedUtterance("missing_alignment", "no .PHN file beside the audio")
        heard = rescale_segments(
            read_alignment(file_of(root, entry.alignment)), audio_rate_hz, self._sample_rate_hz
        )
        end_sample = heard[-1].end_sample
        segments = fold_segments_to_48(heard)
        if not segments:
            raise RejectedUtterance("bad_alignment", "no phones")
        ids = np.array([self._ids[segment.phone] for segment in segments], dtype=np.int32)
        merged = ids[np.flatnonzero(np.diff(ids, prepend=-1))]
        if not self._with_alignment:
            return Labels(merged, end_sample=end_sample)
        # A centre on a boundary belongs to the segment that begins there. In a hole, and past
        # the last end, where TIMIT leaves a few samples unlabelled, the next and the last count.
        ends = np.array([segment.end_sample for segment in segments], dtype=np.int64)
        where = np.searchsorted(ends, centres, side="right")
        targets = ids[np.minimum(where, len(ids) - 1)]
        return Labels(merged, targets, end_sample=end_sample)


def missing_words(out_of_vocabulary: Mapping[str, int]) -> str:
    """Says how many words the lexicon lacks, and which most often; empty where it lacks none.

    Args:
        out_of_vocabulary: word to number of occurrences.
    """
    found = Counter(out_of_vocabulary)
    if not found:
        return ""
    words = ", ".join(f"{word} {count}" for word, count in found.most_common(_SHOWN_WORDS))
    return f"{found.total()} words ({len(found)} different) are not in the lexicon: {words}"
