"""An n-gram language model from transcripts: interpolated modified Kneser-Ney.

Chen & Goodman, *An empirical study of smoothing techniques for language modeling*, 1998, in the
form of Heafield et al., *Scalable modified Kneser-Ney language model estimation*, ACL 2013. With
``g`` an n-gram, ``h`` its context (all words but the last), ``h'`` the context without its first
word::

    a(g)     = count(g) at the highest order and where g begins with <s>;
               else the number of different words seen before g
    D_k      = k - (k + 1) Y t_{k+1} / t_k,   Y = t_1 / (t_1 + 2 t_2),   k = 1, 2, 3 (and more)
    gamma(h) = sum_k D_k N_k(h) / sum_w a(h w)
    p(w | h) = (a(h w) - D_{a(h w)}) / sum_w a(h w) + gamma(h) p(w | h')

where ``t_k`` counts the n-grams with ``a = k``, ``N_k(h)`` those of them that continue ``h``, and
the empty context backs off to the uniform distribution over the vocabulary, ``<unk>`` and
``</s>``. Words that were never seen share what the uniform distribution gives.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SENTENCE_START, SENTENCE_END, UNKNOWN = "<s>", "</s>", "<unk>"

Ngram = tuple[str, ...]
# What the formula gives needs n-grams seen once, twice, three and four times; where a small text
# lacks them, or they give a discount that is none, these stand in, as in Heafield's estimator.
_FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
_NEVER = -99.0


@dataclass(frozen=True)
class NgramEntry:
    """An n-gram's line in an ARPA file.

    Attributes:
        log10_probability: of its last word after the others, interpolated.
        log10_backoff: of the mass left to the words never seen after it; 0 where none was seen.
    """

    log10_probability: float
    log10_backoff: float


@dataclass(frozen=True, eq=False)
class NgramModel:
    """A back-off model.

    Attributes:
        ngrams: for each order from 1, its n-grams.
    """

    ngrams: tuple[dict[Ngram, NgramEntry], ...]

    @property
    def order(self) -> int:
        """Words of the longest n-gram."""
        return len(self.ngrams)


def estimate(
    sentences: Iterable[Sequence[str]], order: int, vocabulary: Iterable[str]
) -> NgramModel:
    """Estimate a model.

    Args:
        sentences: words of each sentence, without ``<s>`` and ``</s>``.
        order: words of the longest n-gram, at least 1; fewer where no sentence is that long.
        vocabulary: words that can be asked for; those of the sentences are added.

    Raises:
        ValueError: when there is no sentence, or a word is one of the reserved ``<s>``, ``</s>``.
    """
    counts = _count(sentences, order)
    if not counts[0]:
        raise ValueError("no sentence to estimate a language model from")
    words = {word for (word,) in counts[0]} | set(vocabulary) | {UNKNOWN, SENTENCE_END}
    words.discard(SENTENCE_START)
    lower: dict[Ngram, float] = dict.fromkeys(((word,) for word in words), 1.0 / len(words))
    probabilities: list[dict[Ngram, float]] = []
    backoffs: list[dict[Ngram, float]] = []
    for length in range(1, order + 1):
        adjusted = _adjust(counts, length)
        if length == 1:
            # A word that was never seen has its share of the uniform distribution.
            adjusted = dict.fromkeys(lower, 0) | adjusted
        if not adjusted:
            break  # no sentence is that long
        discounts = _discounts(Counter(adjusted.values()))
        left_over = _left_over(adjusted, discounts)
        lower = _interpolate(adjusted, discounts, left_over, lower)
        probabilities.append(lower)
        backoffs.append(left_over)
    # The empty context's share is part of the unigrams; what is left over after an n-gram stands
    # in that n-gram's own line.
    return _model(probabilities, [*backoffs[1:], {}])


def _count(sentences: Iterable[Sequence[str]], order: int) -> list[Counter[Ngram]]:
    """Occurrences of the n-grams of each order, ``<s>`` and ``</s>`` included."""
    counts: list[Counter[Ngram]] = [Counter() for _ in range(order)]
    for sentence in sentences:
        reserved = {SENTENCE_START, SENTENCE_END}.intersection(sentence)
        if reserved:
            raise ValueError(f"the word {reserved.pop()} is reserved; remove it from the sentences")
        bounded = (SENTENCE_START, *sentence, SENTENCE_END)
        for length, counter in enumerate(counts, start=1):
            counter.update(
                bounded[start : start + length] for start in range(len(bounded) - length + 1)
            )
    return counts


def _adjust(counts: Sequence[Counter[Ngram]], length: int) -> dict[Ngram, int]:
    """The counts a(g) of one order; the unigram ``<s>``, which is never predicted, is left out."""
    own = counts[length - 1]
    if length == len(counts):
        return {ngram: count for ngram, count in own.items() if ngram != (SENTENCE_START,)}
    adjusted = Counter(longer[1:] for longer in counts[length])
    for ngram, count in own.items():
        if ngram[0] == SENTENCE_START and length > 1:
            adjusted[ngram] = count
    return adjusted


def _discounts(frequency: Counter[int]) -> tuple[float, ...]:
    """D_1, D_2 and D_3 (for three and more), from how many n-grams have each count."""
    if not all(frequency[count] for count in (1, 2, 3, 4)):
        return _FALLBACK_DISCOUNTS
    scale = frequency[1] / (frequency[1] + 2 * frequency[2])
    found = tuple(k - (k + 1) * scale * frequency[k + 1] / frequency[k] for k in (1, 2, 3))
    usable = all(0 < discount <= k for k, discount in enumerate(found, start=1))
    return found if usable else _FALLBACK_DISCOUNTS


def _discount(count: int, discounts: tuple[float, ...]) -> float:
    return discounts[min(count, 3) - 1] if count else 0.0


def _totals(adjusted: dict[Ngram, int]) -> dict[Ngram, int]:
    totals: dict[Ngram, int] = defaultdict(int)
    for ngram, count in adjusted.items():
        totals[ngram[:-1]] += count
    return totals


def _left_over(adjusted: dict[Ngram, int], discounts: tuple[float, ...]) -> dict[Ngram, float]:
    """gamma(h) of every context that something was seen after."""
    taken: dict[Ngram, float] = defaultdict(float)
    for ngram, count in adjusted.items():
        taken[ngram[:-1]] += _discount(count, discounts)
    return {context: taken[context] / total for context, total in _totals(adjusted).items()}


def _interpolate(
    adjusted: dict[Ngram, int],
    discounts: tuple[float, ...],
    left_over: dict[Ngram, float],
    lower: dict[Ngram, float],
) -> dict[Ngram, float]:
    """Probabilities of one order, from those of the order below."""
    totals = _totals(adjusted)
    return {
        ngram: (count - _discount(count, discounts)) / totals[ngram[:-1]]
        + left_over[ngram[:-1]] * lower[ngram[1:] or ngram]
        for ngram, count in adjusted.items()
    }


def _model(
    probabilities: Sequence[dict[Ngram, float]], backoffs: Sequence[dict[Ngram, float]]
) -> NgramModel:
    orders = []
    for of_order, left_over in zip(probabilities, backoffs, strict=True):
        orders.append(
            {
                ngram: NgramEntry(math.log10(probability), math.log10(left_over.get(ngram, 1.0)))
                for ngram, probability in of_order.items()
            }
        )
    start = (SENTENCE_START,)
    orders[0][start] = NgramEntry(_NEVER, math.log10(backoffs[0].get(start, 1.0)))
    return NgramModel(tuple(orders))
