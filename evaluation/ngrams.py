"""An n-gram language model as arrays: what it holds, and what it says of sentences.

Shape legend: N n-grams of one order, n words of each.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

SENTENCE_START, SENTENCE_END, UNKNOWN = "<s>", "</s>", "<unk>"
RESERVED = frozenset({SENTENCE_START, SENTENCE_END, UNKNOWN, UNKNOWN.upper()})
NEVER = -99.0
"""Base-10 logarithm of no probability, as ARPA files write it."""

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NgramOrder:
    """The n-grams of one order, sorted by their words' numbers."""

    prefix_N: Integers  # place of the first n - 1 words among the order below; 0 for single words
    word_N: Integers  # number of the last word
    log10_probability_N: Floats  # of the last word after the others
    log10_backoff_N: Floats  # of what is left to words never seen after it; 0 at the highest order

    def __len__(self) -> int:
        return len(self.word_N)


@dataclass(frozen=True, eq=False)
class NgramModel:
    """A back-off model."""

    vocabulary: tuple[str, ...]  # every word, ``<s>``, ``</s>`` and ``<unk>`` among them, by number
    orders: tuple[NgramOrder, ...]  # from 1

    @property
    def order(self) -> int:
        """Words of the longest n-gram."""
        return len(self.orders)

    @property
    def num_ngrams(self) -> tuple[int, ...]:
        """Of each order, from 1."""
        return tuple(len(order) for order in self.orders)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Words that can be found: all but the reserved ones."""
        return tuple(word for word in self.vocabulary if word not in RESERVED)

    @cached_property
    def number_of(self) -> dict[str, int]:
        """Number of each word, in upper case; the first of those that differ by case alone."""
        found: dict[str, int] = {}
        for number, word in enumerate(self.vocabulary):
            found.setdefault(word if word in RESERVED else word.upper(), number)
        return found

    @cached_property
    def _keys(self) -> tuple[Integers, ...]:
        size = len(self.vocabulary)
        return tuple(order.prefix_N * size + order.word_N for order in self.orders)

    def word_numbers(self, order: int) -> Integers:
        """Numbers of the words of every n-gram of an order, (N, n)."""
        columns, places = [], np.arange(len(self.orders[order - 1]))
        for level in range(order - 1, -1, -1):
            columns.append(self.orders[level].word_N[places])
            places = self.orders[level].prefix_N[places]
        return np.stack(columns[::-1], axis=1)

    def words_at(self, order: int, place: int) -> tuple[int, ...]:
        """Numbers of the words of one n-gram."""
        numbers = []
        for level in range(order - 1, -1, -1):
            numbers.append(int(self.orders[level].word_N[place]))
            place = int(self.orders[level].prefix_N[place])
        return tuple(numbers[::-1])

    def places(self, order: int, prefix_N: Integers, word_N: Integers) -> Integers:
        """Places of n-grams among those of their order, -1 where they are none.

        Args:
            prefix_N: place of the first words among the order below, or -1.
        """
        keys = self._keys[order - 1]
        wanted = prefix_N * len(self.vocabulary) + word_N
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where((prefix_N >= 0) & (keys[at] == wanted), at, -1)

    def place(self, numbers: Sequence[int]) -> int | None:
        """Place of an n-gram among those of its order; None where it is none."""
        at = 0
        for level, number in enumerate(numbers):
            if number < 0:  # a word that the model lacks
                return None
            key = at * len(self.vocabulary) + number
            at = int(np.searchsorted(self._keys[level], key))
            if at == len(self._keys[level]) or self._keys[level][at] != key:
                return None
        return at

    def log10_probability(self, history: Sequence[int], word: int) -> float:
        """Of a word after others, by the longest n-gram that is there."""
        history = tuple(history)[max(0, len(history) - self.order + 1) :]
        found = self.place((*history, word))
        if found is not None:
            return float(self.orders[len(history)].log10_probability_N[found])
        if not history:
            return NEVER
        context = self.place(history)
        order = self.orders[len(history) - 1]
        backoff = 0.0 if context is None else float(order.log10_backoff_N[context])
        return backoff + self.log10_probability(history[1:], word)

    def perplexity(self, sentences: Iterable[Sequence[str]]) -> float:
        """Per upper-case word and sentence end of some sentences, words it lacks left out."""
        total, num_scored = 0.0, 0
        unknown = self.number_of.get(UNKNOWN, -1)
        start = self.number_of[SENTENCE_START]
        for sentence in sentences:
            history = [start]
            for word in (*sentence, SENTENCE_END):
                number = self.number_of.get(word, unknown)
                if number not in (unknown, -1):
                    total += self.log10_probability(history, number)
                    num_scored += 1
                history = [*history, number][-self.order :]
        return math.exp(-total * math.log(10) / num_scored) if num_scored else 1.0
