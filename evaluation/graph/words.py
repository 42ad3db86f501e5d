"""The graph of a word search: every pronunciation of every word, and an n-gram model over them.

Between the words of a frame model silence may stand or not, each a path of its own; between words
of characters stands their space; CTC over phones has its blank.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.graph.arrays import ARC, GraphArrays, graph_of, make_arcs, to_mutable_fst
from evaluation.graph.compose import over_outputs
from evaluation.graph.outputs import Outputs
from evaluation.ngrams import NEVER, SENTENCE_END, SENTENCE_START, Integers, NgramModel

Pronunciation = tuple[int, ...]
_LN_10 = math.log(10.0)
_START, _BETWEEN, _PAUSED = 0, 1, 2


@dataclass(frozen=True)
class Spoken:
    """How words are spoken."""

    # a word's number in the language model, and symbol ids; a word may have several, or none and
    # then not be found
    pronunciations: Sequence[tuple[int, Pronunciation]]
    pause: int | None  # symbol between words; None where there is none
    is_pause_needed: bool  # whether it stands between any two words


def word_graph(outputs: Outputs, spoken: Spoken, model: NgramModel) -> GraphArrays:
    """The graph over a recogniser's outputs; words are numbered as in the model, from 1."""
    import kaldifst

    back_off = len(model.vocabulary) + 1
    lexicon, num_marks = _lexicon(spoken, outputs.num_symbols, back_off)
    words = to_mutable_fst(_grammar(model, back_off))
    kaldifst.connect(words)
    kaldifst.arcsort(words, sort_type="ilabel")
    pronounced = to_mutable_fst(lexicon)
    kaldifst.arcsort(pronounced, sort_type="olabel")
    spoken_words = kaldifst.StdVectorFst(kaldifst.compose(pronounced, words))
    del words, pronounced
    kaldifst.determinize_star(spoken_words)
    kaldifst.minimize_encoded(spoken_words)
    return over_outputs(spoken_words, outputs, num_marks)


def _lexicon(spoken: Spoken, num_symbols: int, back_off: int) -> tuple[GraphArrays, int]:
    """From symbols to words; the first mark is the language model's back-off.

    Pronunciations that are another word's, or begin one, end on a mark: else the graph could not
    be determinised.
    """
    how_often = Counter(spelling for _, spelling in spoken.pronunciations)
    beginnings = {s[:end] for s in how_often for end in range(1, len(s))}
    used: Counter[Pronunciation] = Counter()
    first_mark = num_symbols + 1
    rows = [(_BETWEEN, first_mark, back_off, _BETWEEN)]
    rows += _pauses(spoken)
    num_states = _PAUSED + 1
    for word, spelling in spoken.pronunciations:
        labels = [symbol + 1 for symbol in spelling]
        if how_often[spelling] > 1 or spelling in beginnings:
            used[spelling] += 1
            labels.append(first_mark + used[spelling])
        state, said = _BETWEEN, word + 1
        for label in labels[:-1]:
            rows.append((state, label, said, num_states))
            state, said, num_states = num_states, 0, num_states + 1
        if not (spoken.is_pause_needed and spoken.pause is not None):
            rows.append((state, labels[-1], said, _BETWEEN))
        if spoken.pause is not None:
            rows.append((state, labels[-1], said, _PAUSED))
    table = np.array(rows, np.int32)
    arcs = make_arcs(table[:, 1], table[:, 2], 0.0, table[:, 3])
    final_S = np.full(num_states, np.inf)
    final_S[_BETWEEN] = 0.0
    if spoken.is_pause_needed:
        final_S[_PAUSED] = 0.0
    return graph_of(_START, final_S, table[:, 0], arcs), 1 + max(used.values(), default=0)


def _pauses(spoken: Spoken) -> list[tuple[int, int, int, int]]:
    begins = [(_START, 0, 0, _BETWEEN)]
    if spoken.pause is None:
        return begins
    return [*begins, (_START, 0, 0, _PAUSED), (_PAUSED, spoken.pause + 1, 0, _BETWEEN)]


def _grammar(model: NgramModel, back_off: int) -> GraphArrays:
    """The n-gram model as an acceptor of words, its states the contexts; state 0 knows none."""
    end, start = model.number_of[SENTENCE_END], model.number_of[SENTENCE_START]
    num_contexts = [len(order) for order in model.orders[:-1]]
    first_state = np.cumsum([1, *num_contexts])
    final_S = np.full(first_state[-1], np.inf)
    shorter = _shorter_contexts(model, first_state)
    sources, arcs = [], []
    context_state = np.zeros(1, np.int64)
    for length, order in enumerate(model.orders, start=1):
        source_N = context_state[order.prefix_N]
        cost_N = -_LN_10 * order.log10_probability_N
        is_end = order.word_N == end
        final_S[source_N[is_end]] = cost_N[is_end]
        is_word = ~is_end & (order.word_N != start) & (order.log10_probability_N > NEVER)
        if length < model.order:
            own_state = first_state[length - 1] + np.arange(len(order))
            sources.append(own_state)
            left_cost_N = -_LN_10 * order.log10_backoff_N
            arcs.append(make_arcs(back_off, 0, left_cost_N, shorter[length - 1]))
            context_state = following = own_state
        else:
            following = shorter[length - 1]
        word_N = order.word_N[is_word] + 1
        sources.append(source_N[is_word])
        arcs.append(make_arcs(word_N, word_N, cost_N[is_word], following[is_word]))
    begin = first_state[0] + start if model.order > 1 else 0
    all_arcs = np.concatenate(arcs).astype(ARC)
    return graph_of(int(begin), final_S, np.concatenate(sources), all_arcs)


def _shorter_contexts(model: NgramModel, first_state: Integers) -> list[Integers]:
    """State of the longest context that ends every n-gram and is shorter than it, by order."""
    found = [np.zeros(len(model.orders[0]), np.int64)]
    places = found[0]
    for length, order in enumerate(model.orders[1:], start=2):
        # The n-gram without its first word is: its first words without theirs, then the word.
        without_first = np.zeros(len(order), np.int64) if length == 2 else places[order.prefix_N]
        places = model.places(length - 1, without_first, order.word_N)
        states = first_state[length - 2] + places
        for missing in np.flatnonzero(places < 0):
            states[missing] = _longest(model, first_state, length, int(missing))
        found.append(states)
    return found


def _longest(model: NgramModel, first_state: Integers, length: int, place: int) -> int:
    """The same for one n-gram whose last words, but for the first, are no n-gram themselves."""
    numbers = model.words_at(length, place)
    for skipped in range(2, length):
        shorter = model.place(numbers[skipped:])
        if shorter is not None:
            return int(first_state[length - skipped - 1] + shorter)
    return 0
