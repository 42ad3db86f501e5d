"""How a recogniser's symbols spell words: by letters, or through the pronouncing lexicon.

A word has all pronunciations of the lexicon, and for a word that it lacks there is the configured
rule. Under the rule ``unknown`` such words cannot be told apart; they are one word, ``<unk>``,
pronounced ``spn``.
"""

import re
from collections.abc import Iterable, Sequence

from evaluation.graph.words import Spoken
from evaluation.ngrams import RESERVED, UNKNOWN, NgramModel
from evaluation.transcripts import words_of
from featurize.lexicon import UNKNOWN_PHONE, Lexicon, load_lexicon, spell_out
from featurize.schema import FeaturizeManifest, LabelInventory
from featurize.stage import PipelineError

Spelling = tuple[int, ...]

SILENCES = ("sil", "SIL")

_PRONOUNCEABLE = re.compile(r"(?=.*[A-Z])[A-Z']{1,64}", re.ASCII)
"""Words that letters alone say how to speak."""

# In TIMIT a stop is its closure and its release, which are phones of their own.
_TIMIT_STOPS = {
    "B": ("vcl", "b"), "D": ("vcl", "d"), "G": ("vcl", "g"), "JH": ("vcl", "jh"),
    "P": ("cl", "p"), "T": ("cl", "t"), "K": ("cl", "k"), "CH": ("cl", "ch"),
}  # fmt: skip


class Speller:
    """Spells words in a recogniser's symbols.

    Args:
        lexicon: pronunciations; of labels that are characters, its words alone are used.
        spell_missing: guess the pronunciation of words that the lexicon lacks.
    """

    def __init__(self, labels: LabelInventory, lexicon: Lexicon, *, spell_missing: bool) -> None:
        self.labels = labels
        self.lexicon = lexicon
        self._spell_missing = spell_missing
        self._ids = {symbol: number for number, symbol in enumerate(labels.symbols)}
        self._is_timit = "aa" in self._ids
        self._is_known: dict[str, bool] = {}

    def spellings(self, word: str) -> tuple[Spelling, ...]:
        """Label ids of each pronunciation of a word in any case; none where it has none."""
        word = word.upper()
        is_pronounceable = _PRONOUNCEABLE.fullmatch(word) is not None
        pronunciations: tuple[tuple[str, ...], ...] = ()
        if self.labels.kind == "characters":
            if is_pronounceable:
                pronunciations = (tuple(word),)
        # Others, such as <UNK> and !SIL, are a lexicon's marks, or are no one word of a transcript.
        elif words_of(word) == (word,):
            pronunciations = self.lexicon.lookup_all(word)
            if not pronunciations and self._spell_missing and is_pronounceable:
                pronunciations = (spell_out(word),)
            if self._is_timit:
                pronunciations = tuple(
                    tuple(p for phone in phones for p in _timit(phone)) for phones in pronunciations
                )
        found = (self._as_ids(symbols) for symbols in pronunciations)
        return tuple(dict.fromkeys(spelling for spelling in found if spelling))

    def _as_ids(self, symbols: Iterable[str]) -> Spelling | None:
        ids = [self._ids.get(symbol) for symbol in symbols]
        known = tuple(number for number in ids if number is not None)
        return known if len(known) == len(ids) else None

    @property
    def unknown_spelling(self) -> Spelling | None:
        """Of the word that stands for all without a pronunciation."""
        number = self._ids.get(UNKNOWN_PHONE)
        return None if number is None else (number,)

    def dictionary_words(self) -> set[str]:
        """The lexicon's words that can be spelled."""
        return {word for word in self.lexicon.pronunciations if self.spellings(word)}

    def known_or_unknown(self, words: Sequence[str]) -> tuple[str, ...]:
        """The words, those that cannot be spelled replaced by ``<unk>``."""
        known = self._is_known
        for word in words:
            if word not in known:
                known[word] = bool(self.spellings(word))
        return tuple(word if known[word] else UNKNOWN for word in words)


def _timit(phone: str) -> tuple[str, ...]:
    return _TIMIT_STOPS.get(phone, (phone.lower(),))


def lexicon_of_features(features: FeaturizeManifest) -> str | None:
    """Address of the lexicon that a feature set was made with; None for CMUdict."""
    own = features.config.get("lexicon")
    return own if isinstance(own, str) else None


def speller_for(features: FeaturizeManifest, lexicon: str | None) -> Speller:
    """The speller of a feature set's labels.

    Args:
        lexicon: address of another lexicon; None for the feature set's own.
    """
    address = lexicon if lexicon is not None else lexicon_of_features(features)
    rule = features.config.get("out_of_vocabulary")
    return Speller(features.labels, load_lexicon(address), spell_missing=rule == "spell")


def spoken_words(model: NgramModel, speller: Speller) -> Spoken:
    """How the words of a language model are spoken."""
    found = [
        (number, spelling)
        for number, word in enumerate(model.vocabulary)
        if word not in RESERVED
        for spelling in speller.spellings(word)
    ]
    if not found:
        raise PipelineError(
            "not one word of the language model can be spelled; give a model of upper-case or "
            "lower-case English words, or a lexicon that holds its words (words.lexicon)"
        )
    if speller.unknown_spelling is not None and UNKNOWN in model.vocabulary:
        found.append((model.vocabulary.index(UNKNOWN), speller.unknown_spelling))
    boundary = speller.labels.word_boundary
    if boundary is not None:
        return Spoken(found, boundary, is_pause_needed=True)
    silence = [n for n, symbol in enumerate(speller.labels.symbols) if symbol in SILENCES]
    return Spoken(found, silence[0] if silence else None, is_pause_needed=False)


def lexicon_text(spoken: Spoken, model: NgramModel, labels: LabelInventory) -> str:
    """As a lexicon file, a word and the symbols of one pronunciation on each line."""
    lines = [
        f"{model.vocabulary[word]}\t{' '.join(labels.symbols[symbol] for symbol in spelling)}"
        for word, spelling in spoken.pronunciations
    ]
    return "\n".join(lines) + "\n"
