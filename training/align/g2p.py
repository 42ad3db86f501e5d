"""Pronunciations of words that a lexicon lacks, by a model of the words that it has.

Every letter of a listed word says none, one or two of its phones. Which ones is found by
expectation maximisation over all ways to share the phones out; the best way makes of each word a
sequence of pairs (letter, phones), and an interpolated Kneser-Ney n-gram of such pairs pronounces
other words (Bisani & Ney, Speech Communication 2008, with pairs of one letter).

Shape legend: W words, L different letters, Q different phones, C pieces (phones of a letter).
"""

import string
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from training.kernels.jit import kernel

_LETTERS = string.ascii_uppercase + "'"
_ORDER = 6
_BITS = 10
_DISCOUNT = 0.75
_NUM_ITERATIONS = 6
_MIN_COUNT = 3
_BEAM = 40
_NUM_BEST = 3
_LEAST_SHARE = 0.1

Words = Mapping[str, tuple[tuple[str, ...], ...]]


class GraphemeModel:
    """Says how a word may be pronounced.

    Args:
        listed: pronunciations of the words that are known.
    """

    def __init__(self, listed: Words) -> None:
        self._phones = sorted({p for every in listed.values() for one in every for p in one})
        numbers = {phone: number for number, phone in enumerate(self._phones)}
        pairs = [
            ([_LETTERS.index(letter) for letter in word], [numbers[phone] for phone in phones])
            for word, every in sorted(listed.items())
            for phones in every
            if set(word) <= set(_LETTERS) and 0 < len(phones) <= 2 * len(word)
        ]
        tokens, starts = self._tokens(pairs)
        self._count(tokens, starts)

    def _tokens(
        self, pairs: list[tuple[list[int], list[int]]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The words as pairs of a letter and its piece, end to end, and where each begins."""
        letters = np.array([letter for word, _ in pairs for letter in word], np.int64)
        phones = np.array([phone for _, said in pairs for phone in said], np.int64)
        letter_starts = np.cumsum([0, *(len(word) for word, _ in pairs)])
        phone_starts = np.cumsum([0, *(len(said) for _, said in pairs)])
        num_phones = len(self._phones)
        table_LC = np.full((len(_LETTERS), 1 + num_phones + num_phones**2), 1.0)
        pieces = np.zeros(len(letters), np.int64)
        sizes = (letter_starts, phone_starts)
        for _ in range(_NUM_ITERATIONS):
            counts_LC = np.zeros_like(table_LC)
            _share_out(letters, phones, *sizes, table_LC, counts_LC, pieces, num_phones)
            table_LC = counts_LC / np.maximum(counts_LC.sum(1, keepdims=True), 1e-9)
        both = letters * table_LC.shape[1] + pieces
        known, inverse, counts = np.unique(both, return_inverse=True, return_counts=True)
        # Rare pairs are mistakes of the lexicon or of sharing out; their words are left aside.
        kept = np.flatnonzero(counts >= _MIN_COUNT)[: 2**_BITS - 2]
        self._letter_of, self._piece_of = np.divmod(known[kept], table_LC.shape[1])
        names = np.full(len(known), -1)
        names[kept] = np.arange(len(kept)) + 1
        tokens = names[inverse]
        word_of = np.repeat(np.arange(len(pairs)), np.diff(letter_starts))
        is_bad = np.zeros(len(pairs), bool)
        is_bad[word_of[tokens < 0]] = True
        whole = tokens[~is_bad[word_of]]
        lengths = np.diff(letter_starts)[~is_bad]
        return whole, np.cumsum(lengths) - lengths

    def _count(self, tokens: NDArray[np.int64], starts: NDArray[np.int64]) -> None:
        """Sorted n-grams of each order with their counts; 0 stands before and after a word."""
        padded = np.append(np.insert(tokens, starts, 0), 0)
        places = np.arange(len(padded))
        word_starts = np.append(starts + np.arange(len(starts)), len(padded) - 1)
        history = np.zeros(len(padded), np.int64)
        # A word's end is predicted too, by its last pairs; the start of the next word is not.
        for back in range(_ORDER - 1, -1, -1):
            history <<= _BITS
            history[back:] |= padded[: len(padded) - back]
        begun = word_starts[np.searchsorted(word_starts, places) - 1]
        known = np.minimum(places - begun, _ORDER - 1)
        grams = (history & ((np.int64(1) << _BITS * (known + 1)) - 1))[1:]
        self._keys: list[NDArray[np.int64]] = []
        self._values: list[NDArray[np.float64]] = []
        self._totals: list[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]] = []
        counts = np.ones(len(grams))
        for order in range(_ORDER, 0, -1):
            keys, inverse = np.unique(grams & (2 ** (_BITS * order) - 1), return_inverse=True)
            values = np.bincount(inverse, counts).astype(np.float64)
            before, places = np.unique(keys >> _BITS, return_inverse=True)
            totals = np.bincount(places, values).astype(np.float64)
            self._keys.insert(0, keys)
            self._values.insert(0, values)
            self._totals.insert(0, (before, totals, np.bincount(places).astype(np.float64)))
            # Lower orders count in how many histories a gram was seen.
            grams, counts = keys, np.ones(len(keys))

    def _log_probabilities(self, grams: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of the last pair of each n-gram after those before it."""
        found = np.full(len(grams), 1.0 / (len(self._letter_of) + 1))
        for order in range(1, _ORDER + 1):
            cut = grams & (2 ** (_BITS * order) - 1)
            values = _looked_up(cut, self._keys[order - 1], self._values[order - 1])
            before, totals, kinds = self._totals[order - 1]
            total = _looked_up(cut >> _BITS, before, totals)
            kind = _looked_up(cut >> _BITS, before, kinds)
            divisor = np.maximum(total, 1.0)
            mixed = (np.maximum(values - _DISCOUNT, 0.0) + _DISCOUNT * kind * found) / divisor
            found = np.where(total > 0, mixed, found)
        logarithms: NDArray[np.float64] = np.log(found)
        return logarithms

    def __call__(self, word: str) -> list[tuple[str, ...]]:
        """The likeliest pronunciations, best first.

        Args:
            word: upper case.

        Returns:
            Up to three, each at least a tenth as likely as the first; none for a word with other
            symbols than letters and the apostrophe.
        """
        if not word or not set(word) <= set(_LETTERS):
            return []
        grams, scores = np.zeros(1, np.int64), np.zeros(1)
        said: list[tuple[int, ...]] = [()]
        window = 2 ** (_BITS * (_ORDER - 1)) - 1
        for letter in word:
            tokens = np.flatnonzero(self._letter_of == _LETTERS.index(letter)) + 1
            longer = ((grams & window) << _BITS)[:, None] | tokens
            total = scores[:, None] + self._log_probabilities(longer.ravel()).reshape(longer.shape)
            best = np.argsort(-total, axis=None, kind="stable")[:_BEAM]
            rows, columns = np.divmod(best, len(tokens))
            grams, scores = longer[rows, columns], total[rows, columns]
            pieces = self._piece_of[tokens[columns] - 1]
            said = [said[row] + self._spelt(piece) for row, piece in zip(rows, pieces, strict=True)]
        scores = scores + self._log_probabilities((grams & window) << _BITS)
        shares: dict[tuple[int, ...], float] = {}
        for phones, score in zip(said, scores, strict=True):
            shares[phones] = shares.get(phones, 0.0) + float(np.exp(score))
        shares.pop((), None)
        ranked = sorted(shares, key=lambda phones: (-shares[phones], phones))[:_NUM_BEST]
        return [
            tuple(self._phones[phone] for phone in phones)
            for phones in ranked
            if shares[phones] >= _LEAST_SHARE * shares[ranked[0]]
        ]

    def _spelt(self, piece: int) -> tuple[int, ...]:
        """Phones of a piece."""
        if piece == 0:
            return ()
        num_phones = len(self._phones)
        if piece <= num_phones:
            return (int(piece) - 1,)
        return divmod(int(piece) - 1 - num_phones, num_phones)


def _looked_up(
    wanted: NDArray[np.int64], keys: NDArray[np.int64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0.0)


@kernel
def _share_out(  # type: ignore[no-untyped-def]
    letters, phones, letter_starts, phone_starts, table_LC, counts_LC, pieces, num_phones
):
    """Adds the expected counts of every pair, and sets the pieces of the best way."""
    for word in range(len(letter_starts) - 1):
        spelt = letters[letter_starts[word] : letter_starts[word + 1]]
        said = phones[phone_starts[word] : phone_starts[word + 1]]
        shape = (len(spelt) + 1, len(said) + 1)
        ahead, best, behind = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        taken = np.zeros(shape, np.int64)
        ahead[0, 0] = best[0, 0] = behind[-1, -1] = 1.0
        for i in range(len(spelt)):
            for j in range(len(said) + 1):
                for size in range(min(2, len(said) - j) + 1):
                    weight = table_LC[spelt[i], _piece(said, j, size, num_phones)]
                    ahead[i + 1, j + size] += ahead[i, j] * weight
                    if best[i, j] * weight > best[i + 1, j + size]:
                        best[i + 1, j + size] = best[i, j] * weight
                        taken[i + 1, j + size] = size
        for i in range(len(spelt) - 1, -1, -1):
            for j in range(len(said) + 1):
                for size in range(min(2, len(said) - j) + 1):
                    piece = _piece(said, j, size, num_phones)
                    weight = table_LC[spelt[i], piece] * behind[i + 1, j + size]
                    behind[i, j] += weight
                    if weight > 0.0:
                        counts_LC[spelt[i], piece] += ahead[i, j] * weight / ahead[-1, -1]
        _trace(taken, said, pieces[letter_starts[word] : letter_starts[word + 1]], num_phones)


@kernel
def _trace(taken, said, pieces, num_phones):  # type: ignore[no-untyped-def]
    """Sets a word's pieces by how many phones each letter took on the best way."""
    j = len(said)
    for i in range(len(pieces), 0, -1):
        size = taken[i, j]
        j -= size
        pieces[i - 1] = _piece(said, j, size, num_phones)


@kernel
def _piece(phones, place, size, num_phones):  # type: ignore[no-untyped-def]
    """Number of a piece: none, one phone, or two."""
    if size == 0:
        return 0
    if size == 1:
        return 1 + phones[place]
    return 1 + num_phones + phones[place] * num_phones + phones[place + 1]
