"""How the words of a transcript may be said: as the lexicon lists them, or as is guessed."""

from collections.abc import Sequence

from featurize.labels import LexiconLabeller
from training.align.g2p import GraphemeModel
from training.align.graph import Pronunciations


class Pronouncer:
    """Pronunciations of words, those of the lexicon and guesses where it has none.

    Args:
        labeller: what gave the features their labels.

    Attributes:
        guessed: words that the lexicon lacks, and the likeliest guess.
    """

    def __init__(self, labeller: LexiconLabeller) -> None:
        self.guessed: dict[str, tuple[str, ...]] = {}
        self._labeller = labeller
        self._known: dict[str, Pronunciations] = {}
        self._model: GraphemeModel | None = None

    def labels(self, words: Sequence[str]) -> list[int]:
        """Phone ids that the features should have for these words."""
        return [phone for word in words for phone in self._labeller.pronunciation(word)[0]]

    def __call__(self, word: str) -> Pronunciations:
        """Phone ids of each way to say an upper-case word."""
        if word not in self._known:
            listed = self._labeller.lexicon.lookup_all(word) or self._guess(word)
            self._known[word] = [self._labeller.ids(phones) for phones in listed]
        return self._known[word]

    def _guess(self, word: str) -> Sequence[tuple[str, ...]]:
        lexicon = self._labeller.lexicon
        if self._model is None:
            self._model = GraphemeModel({w: lexicon.lookup_all(w) for w in lexicon.pronunciations})
        found = self._model(word)
        if not found:
            return [self._labeller.phones(word)]
        self.guessed[word] = found[0]
        return found
