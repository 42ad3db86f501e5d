"""An n-gram language model from text: interpolated modified Kneser-Ney.

Chen & Goodman, *An empirical study of smoothing techniques for language modeling*, 1998, in the
form of Heafield et al., *Scalable modified Kneser-Ney language model estimation*, ACL 2013. With
``g`` an n-gram, ``h`` its context (all words but the last), ``h'`` the context without its first
word::

    a(g)     = count(g) at the highest order and where g begins with <s>;
               else the number of different words seen before g
    D_k      = k - (k + 1) Y t_{k+1} / t_k,   Y = t_1 / (t_1 + 2 t_2),   k = 1, 2, 3 (and more)
    p'(w | h) = (a(h w) - D_{a(h w)}) / sum_w a(h w)    for the n-grams that are kept
    gamma(h) = 1 - sum_w p'(w | h)
    p(w | h) = p'(w | h) + gamma(h) p(w | h')

where ``t_k`` counts the n-grams with ``a = k``, and the empty context backs off to the uniform
distribution over the vocabulary, ``<unk>`` and ``</s>``. Words that were never seen share what the
uniform distribution gives. N-grams of two words and more that occur too seldom are left out once
everything is counted; what they had goes to gamma.

Shape legend: W words of the text with ``<s>`` and ``</s>``, N n-grams of one order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.ngrams import (
    NEVER,
    SENTENCE_END,
    SENTENCE_START,
    UNKNOWN,
    Floats,
    Integers,
    NgramModel,
    NgramOrder,
)

Flags = NDArray[np.bool_]

# What the formula gives needs n-grams seen once, twice, three and four times; where a small text
# lacks them, or they give a discount that is none, these stand in, as in Heafield's estimator.
_FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)


@dataclass(frozen=True, eq=False)
class _Counted:
    """The n-grams of one order as the text has them."""

    prefix_N: Integers  # place of the first words among the order below
    suffix_N: Integers  # place of the last words among the order below
    word_N: Integers  # the last word
    count_N: Integers
    begins_N: Flags  # whether it begins with ``<s>``


def estimate(
    sentences: Iterable[Sequence[str]], order: int, vocabulary: Iterable[str], min_count: int = 1
) -> NgramModel:
    """Estimate a model.

    Args:
        sentences: words of each sentence, without ``<s>`` and ``</s>``.
        order: words of the longest n-gram, at least 1; fewer where no sentence is that long.
        vocabulary: words that can be asked for; those of the sentences are added.
        min_count: n-grams of two words and more that occur less often are left out.

    Raises:
        ValueError: when there is no sentence, or a word is one of the reserved ``<s>``, ``</s>``.
    """
    names, text_W = _read(sentences, vocabulary)
    start = names.index(SENTENCE_START)
    counted = _count(text_W, order, len(names), start)
    # <s> stands in no place but the first, where it is certain: it is never foreseen.
    lower = np.full(1, 1.0 / (len(names) - 1))
    orders: list[NgramOrder] = []
    new_place, was_kept_N = np.zeros(1, np.int64), np.ones(1, bool)
    for length, own in enumerate(counted, start=1):
        adjusted_N = _adjusted(own, counted[length] if length < len(counted) else None)
        kept_N = own.count_N >= (0 if length == 1 else min_count)
        if length == 1:
            adjusted_N[start] = 0
        if not kept_N.any():
            break
        share_N, left_over = _discounted(own, adjusted_N, kept_N, len(lower))
        lower = share_N + left_over[own.prefix_N] * lower[own.suffix_N]
        with np.errstate(divide="ignore"):
            if orders:
                orders[-1].log10_backoff_N[:] = np.log10(left_over[was_kept_N])
            probability_N = np.log10(lower[kept_N])
        if length == 1:
            probability_N[start] = NEVER
        orders.append(
            NgramOrder(
                prefix_N=new_place[own.prefix_N[kept_N]],
                word_N=own.word_N[kept_N],
                log10_probability_N=probability_N,
                log10_backoff_N=np.zeros(int(kept_N.sum())),
            )
        )
        new_place, was_kept_N = np.cumsum(kept_N) - 1, kept_N
    return NgramModel(tuple(names), tuple(orders))


def _read(
    sentences: Iterable[Sequence[str]], vocabulary: Iterable[str]
) -> tuple[list[str], Integers]:
    """All words in alphabetical order, and the text in their numbers, bounds included."""
    first_seen: dict[str, int] = {SENTENCE_START: 0, SENTENCE_END: 1}
    text: list[np.ndarray] = []
    for sentence in sentences:
        if SENTENCE_START in sentence or SENTENCE_END in sentence:
            reserved = SENTENCE_START if SENTENCE_START in sentence else SENTENCE_END
            raise ValueError(f"the word {reserved} is reserved; remove it from the sentences")
        numbers = [first_seen.setdefault(word, len(first_seen)) for word in sentence]
        text.append(np.array([0, *numbers, 1], np.int32))
    if not text:
        raise ValueError("no sentence to estimate a language model from")
    for word in (UNKNOWN, *vocabulary):
        first_seen.setdefault(word, len(first_seen))
    names = sorted(first_seen)
    sorted_place = np.empty(len(names), np.int64)
    sorted_place[[first_seen[name] for name in names]] = np.arange(len(names))
    return names, sorted_place[np.concatenate(text)]


def _count(text_W: Integers, order: int, size: int, start: int) -> list[_Counted]:
    """The n-grams of each order, sorted; single words of the whole vocabulary."""
    none = np.zeros(size, np.int64)
    counted = [
        _Counted(none, none, np.arange(size), np.bincount(text_W, minlength=size), none == 1)
    ]
    # Where each n-gram of the order below begins in the text, and which it is.
    begins, which = np.arange(len(text_W)), text_W
    begins_sentence = text_W == start
    for length in range(2, order + 1):
        ends = begins + length - 1
        # A window that would go on into the next sentence holds its <s>.
        inside = ends < len(text_W)
        inside[inside] &= ~begins_sentence[ends[inside]]
        place = np.full(len(text_W), -1, np.int64)
        place[begins] = which
        begins, which = begins[inside], which[inside]
        if not len(begins):
            break
        keys = which * size + text_W[begins + length - 1]
        unique, first, which, count = np.unique(
            keys, return_index=True, return_inverse=True, return_counts=True
        )
        counted.append(
            _Counted(
                prefix_N=unique // size,
                suffix_N=place[begins[first] + 1],
                word_N=unique % size,
                count_N=count,
                begins_N=begins_sentence[begins[first]],
            )
        )
    return counted


def _adjusted(own: _Counted, longer: _Counted | None) -> Integers:
    """The counts a(g) of one order."""
    if longer is None:
        return own.count_N.copy()
    adjusted_N = np.bincount(longer.suffix_N, minlength=len(own.count_N))
    return np.where(own.begins_N, own.count_N, adjusted_N)


def _discounted(
    own: _Counted, adjusted_N: Integers, kept_N: Flags, num_contexts: int
) -> tuple[Floats, Floats]:
    """p' of every n-gram, and gamma of every context."""
    discounts = np.array([0.0, *_discounts(np.bincount(adjusted_N, minlength=5))])
    discounted_N = adjusted_N - discounts[np.minimum(adjusted_N, 3)]
    total = np.bincount(own.prefix_N, adjusted_N, minlength=num_contexts)
    share_N = discounted_N / np.maximum(total, 1)[own.prefix_N]
    kept = np.bincount(own.prefix_N, share_N * kept_N, minlength=num_contexts)
    return share_N, np.asarray(1.0 - kept, np.float64)


def _discounts(frequency: Integers) -> tuple[float, ...]:
    """D_1, D_2 and D_3 (for three and more), from how many n-grams have each count."""
    if not all(frequency[count] for count in (1, 2, 3, 4)):
        return _FALLBACK_DISCOUNTS
    scale = frequency[1] / (frequency[1] + 2 * frequency[2])
    found = tuple(float(k - (k + 1) * scale * frequency[k + 1] / frequency[k]) for k in (1, 2, 3))
    usable = all(0 < discount <= k for k, discount in enumerate(found, start=1))
    return found if usable else _FALLBACK_DISCOUNTS
