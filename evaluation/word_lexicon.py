"""How a recogniser's symbols spell words: by letters, or through the pronouncing lexicon.

A word is pronounced as ``featurize`` pronounced the training transcripts: the lexicon's first
pronunciation, and for a word that it lacks the configured rule. Under the rule ``unknown`` such
words cannot be told apart; they are one word, ``<unk>``, pronounced ``spn``.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from evaluation.kneser_ney import UNKNOWN
from featurize.lexicon import UNKNOWN_PHONE, Lexicon, load_lexicon, spell_out
from featurize.schema import FeaturizeManifest, LabelInventory
from featurize.stage import PipelineError

Spelling = tuple[int, ...]

_PRONOUNCEABLE = re.compile(r"(?=.*[A-Z])[A-Z']{1,64}", re.ASCII)

# In TIMIT a stop is its closure and its release, which are phones of their own.
_TIMIT_STOPS = {
    "B": ("vcl", "b"), "D": ("vcl", "d"), "G": ("vcl", "g"), "JH": ("vcl", "jh"),
    "P": ("cl", "p"), "T": ("cl", "t"), "K": ("cl", "k"), "CH": ("cl", "ch"),
}  # fmt: skip


class Speller:
    """Spells words in a recogniser's symbols.

    Args:
        labels: the recogniser's symbols.
        lexicon: pronunciations; of labels that are characters, its words alone are used.
        spell_missing: guess the pronunciation of words that the lexicon lacks.
    """

    def __init__(self, labels: LabelInventory, lexicon: Lexicon, *, spell_missing: bool) -> None:
        self.labels = labels
        self.lexicon = lexicon
        self._spell_missing = spell_missing
        self._ids = {symbol: number for number, symbol in enumerate(labels.symbols)}
        self._is_timit = "aa" in self._ids

    def spell(self, word: str) -> Spelling | None:
        """Label ids of a word in any case; None where it cannot be spelled."""
        word = word.upper()
        if _PRONOUNCEABLE.fullmatch(word) is None:
            return None
        if self.labels.kind == "characters":
            return self._as_ids(word)
        phones = self.lexicon.lookup(word)
        if phones is None and self._spell_missing:
            phones = spell_out(word)
        if phones is None:
            return None
        if self._is_timit:
            return self._as_ids(p for phone in phones for p in _timit(phone))
        return self._as_ids(phones)

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
        return {word for word in self.lexicon.pronunciations if self.spell(word) is not None}

    def known_or_unknown(self, words: Iterable[str]) -> tuple[str, ...]:
        """The words, those that cannot be spelled replaced by ``<unk>``."""
        return tuple(UNKNOWN if self.spell(word) is None else word for word in words)


def _timit(phone: str) -> tuple[str, ...]:
    return _TIMIT_STOPS.get(phone, (phone.lower(),))


def speller_for(features: FeaturizeManifest, lexicon: str | None) -> Speller:
    """The speller that a feature set's labels were made with.

    Args:
        features: the feature set's manifest.
        lexicon: address of another lexicon; None for the feature set's own.

    Raises:
        PipelineError: when the lexicon cannot be read.
    """
    own = features.config.get("lexicon")
    address = lexicon if lexicon is not None else own if isinstance(own, str) else None
    rule = features.config.get("out_of_vocabulary")
    return Speller(features.labels, load_lexicon(address), spell_missing=rule == "spell")


@dataclass(frozen=True, eq=False)
class WordLexicon:
    """The words that a search can find.

    Attributes:
        words: as they are put out, upper case; ``<unk>`` last.
        spellings: label ids of each; None where it cannot be spelled and so not be found.
    """

    words: tuple[str, ...]
    spellings: tuple[Spelling | None, ...]

    @property
    def num_spelled(self) -> int:
        """Words that can be found, ``<unk>`` aside."""
        return sum(spelling is not None for spelling in self.spellings[:-1])

    def text(self, labels: LabelInventory) -> str:
        """As a lexicon file, a word and its symbols on each line."""
        lines = [
            f"{word}\t{' '.join(labels.symbols[number] for number in spelling)}"
            for word, spelling in zip(self.words, self.spellings, strict=True)
            if spelling is not None
        ]
        return "\n".join(lines) + "\n"


def spell_vocabulary(words: Iterable[str], speller: Speller) -> WordLexicon:
    """Spell a language model's words, and ``<unk>`` after them.

    Raises:
        PipelineError: when not one can be spelled.
    """
    kept = tuple(words)
    spellings = [speller.spell(word) for word in kept]
    if not any(spellings):
        raise PipelineError(
            "not one word of the language model can be spelled; give a model of upper-case or "
            "lower-case English words, or a lexicon that holds its words (words.lexicon)"
        )
    return WordLexicon(
        (*(word.upper() for word in kept), UNKNOWN), (*spellings, speller.unknown_spelling)
    )


def read_spelled(text: str, words: Iterable[str], labels: LabelInventory) -> WordLexicon:
    """The lexicon that :meth:`WordLexicon.text` wrote, in the order of a language model's words.

    Args:
        text: the file's content.
        words: the language model's words.
        labels: the recogniser's symbols.

    Raises:
        PipelineError: naming the line that is not 'WORD SYMBOL...' in these symbols.
    """
    ids = {symbol: number for number, symbol in enumerate(labels.symbols)}
    found: dict[str, Spelling] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        word, _, symbols = line.partition("\t")
        spelling = tuple(ids.get(symbol, -1) for symbol in symbols.split(" "))
        if not word or min(spelling) < 0:
            raise PipelineError(
                f"{line[:40]!r}, line {number} of the evaluation's lexicon, is no word in this "
                "recogniser's symbols; evaluate again"
            )
        found[word] = spelling
    upper = (*(word.upper() for word in words), UNKNOWN)
    return WordLexicon(upper, tuple(found.get(word) for word in upper))
