"""The graph search against every hypothesis there is, each scored by a search of its own."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from evaluation.graph.lattice import hypotheses
from evaluation.graph.outputs import Outputs, frame_outputs, search_graph
from evaluation.graph.phones import phone_graph
from evaluation.graph.search import GraphSearch, SearchWeights
from evaluation.graph.search_graph import from_arrays
from evaluation.graph.words import Spoken, word_graph
from evaluation.kneser_ney import estimate
from evaluation.ngrams import SENTENCE_END, SENTENCE_START
from featurize.schema import StateInventory
from featurize.stage import PipelineError

WIDE = {"beam": 1e4, "max_active": 1_000_000}
WEIGHTS = SearchWeights(lm_weight=0.7, word_score=-0.4, prior_scale=0.3, **WIDE)
SIL = 2


def log_softmax(values):
    return (values - np.log(np.exp(values).sum(1, keepdims=True))).astype(np.float32)


def senones(num_parts):
    """Symbols 0, 1 and silence 2; the parts of 0 depend on the left neighbour, of 1 on the right.

    As a neighbour, 3 is the outside of the utterance.
    """
    rows = []
    for part in range(num_parts):
        rows += [(0, part, (0, 1), ()), (0, part, (2, 3), ())]
        rows += [(1, part, (), (0, 2)), (1, part, (), (1, 3)), (2, part, (), ())]
    phones, positions, left, right = zip(*rows, strict=True)
    return StateInventory(
        states_per_phone=num_parts, phones=phones, positions=positions, left=left, right=right
    )


def outputs_with(states, frame_shift_s, seed=0):
    rng = np.random.default_rng(seed)
    num_outputs = 3 if states is None else len(states.phones)
    bigrams = rng.integers(1, 9, (4, 4))
    bigrams[3, 3] = 0
    return frame_outputs(states, bigrams, rng.integers(20, 90, num_outputs), frame_shift_s), bigrams


def ctc_outputs():
    none = np.zeros(4, np.float32)
    stay = np.array([0, 0, 0, np.inf], np.float32)
    every = np.arange(4, dtype=np.int32)
    return Outputs(3, True, every[:-1, None], every, stay, none, none, False)


def best_alignment(symbols, scores_TE, outputs):
    """The best path through one sequence of symbols, state after state (by hand, no graph)."""
    if outputs.is_ctc:
        return best_ctc(symbols, scores_TE)
    outside, table = outputs.num_symbols, outputs.table
    chain = []  # (emission, part) of every state
    for place, symbol in enumerate(symbols):
        left = symbols[place - 1] if place else outside
        right = symbols[place + 1] if place + 1 < len(symbols) else outside
        row = table[symbol] if table.ndim == 2 else table[left, symbol, right]
        chain += [(place, part, int(emission)) for part, emission in enumerate(row)]
    num_parts = table.shape[-1]
    best = np.full(len(chain), -np.inf)
    for t, score_E in enumerate(scores_TE):
        before, best = best, np.full(len(chain), -np.inf)
        for state, (place, part, emission) in enumerate(chain):
            ways = [0.0] if t == 0 and place == 0 and (part == 0 or outputs.may_skip) else []
            if t > 0:
                ways.append(before[state] - outputs.stay_E[emission])
                for earlier, (where, which, left_emission) in enumerate(chain[:state]):
                    inside = where == place and (which == part - 1 or outputs.may_skip)
                    leaves = outputs.may_skip or which == num_parts - 1
                    enters = outputs.may_skip or part == 0
                    if inside or (where == place - 1 and leaves and enters):
                        ways.append(before[earlier] - outputs.leave_E[left_emission])
            if ways:
                best[state] = max(ways) + score_E[emission]
    ends = [
        best[state] - outputs.leave_E[emission]
        for state, (place, part, emission) in enumerate(chain)
        if place == len(symbols) - 1 and (part == num_parts - 1 or outputs.may_skip)
    ]
    return max(ends, default=-np.inf)


def best_ctc(symbols, scores_TE):
    blank = scores_TE.shape[1] - 1
    extended = [blank, *itertools.chain.from_iterable((symbol, blank) for symbol in symbols)]
    best = np.full(len(extended), -np.inf)
    best[:2] = scores_TE[0][extended[:2]]
    for score_E in scores_TE[1:]:
        before = best.copy()
        for n, label in enumerate(extended):
            ways = [before[n]] + ([before[n - 1]] if n else [])
            if n > 1 and label != blank and label != extended[n - 2]:
                ways.append(before[n - 2])
            best[n] = max(ways) + score_E[label]
    return max(best[-2:])


OUTPUTS = {
    "symbols": lambda: outputs_with(None, 0.03),
    "three states": lambda: outputs_with(senones(3), 0.01),
    "one state in context": lambda: outputs_with(senones(1), 0.03),
    "two states, passed over": lambda: outputs_with(senones(2), 0.03),
    "ctc": lambda: (ctc_outputs(), outputs_with(None, 0.03)[1]),
}


def scored(outputs, num_frames, seed):
    rng = np.random.default_rng(seed)
    return log_softmax(2 * rng.normal(size=(num_frames, len(outputs.emission_O))))


def weighted_scores(outputs, log_probs):
    return log_probs - WEIGHTS.prior_scale * outputs.log_prior_O


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("seed", range(4))
def test_symbols_are_the_best_of_all_sequences(kind, seed):
    outputs, bigrams = OUTPUTS[kind]()
    graph = search_graph(phone_graph(outputs, bigrams, 0.5), ("A", "B", "SIL"), outputs)
    log_probs = scored(outputs, 7, seed)
    found = GraphSearch(graph, WEIGHTS).find(log_probs)
    counts = bigrams + 0.5
    counts[3, 3] = 0
    if not outputs.is_ctc and outputs.table.shape[-1] == 1:
        np.fill_diagonal(counts, 0)
    with np.errstate(divide="ignore"):
        bigram = np.log(counts / counts.sum(1, keepdims=True))

    def score(symbols):
        path = [3, *symbols, 3]
        language = sum(bigram[pair] for pair in itertools.pairwise(path))
        if language == -np.inf:
            return -np.inf
        acoustic = best_alignment(symbols, weighted_scores(outputs, log_probs), outputs)
        return acoustic + WEIGHTS.lm_weight * language + WEIGHTS.word_score * len(symbols)

    sequences = [s for n in range(1, 6) for s in itertools.product(range(3), repeat=n)]
    best = max(sequences, key=score)
    assert found.score == pytest.approx(score(best), abs=1e-3)
    assert score(found.labels) == pytest.approx(score(best), abs=1e-3)
    several = hypotheses(GraphSearch(graph, WEIGHTS), log_probs, 6, 0.03)
    assert several.found[0].labels == found.labels
    assert len({one.labels for one in several.found}) == len(several.found)
    scores = [one.score for one in several.found]
    assert scores == sorted(scores, reverse=True)
    for one in several.found:
        assert one.score == pytest.approx(score(one.labels), abs=1e-3)
    near = [value for value in map(score, sequences) if value > found.score - 7.9]  # in the lattice
    for one, value in zip(several.found, sorted(near, reverse=True)[:6], strict=False):
        assert one.score >= value - 1e-3
    assert len(several.found) >= min(6, len(near))
    assert len(several.confidences) == len(found.labels)
    assert all(0.0 <= sure <= 1.0 for sure in several.confidences)


def test_a_word_is_as_sure_as_the_paths_that_say_it():
    """A, for certain, and then A or B with even chances: by hand, in a graph without costs."""
    outputs = dataclasses.replace(ctc_outputs(), num_symbols=2, table=np.arange(2)[:, None])
    outputs = dataclasses.replace(
        outputs,
        emission_O=np.arange(3, dtype=np.int32),
        log_prior_O=np.zeros(3, np.float32),
        stay_E=np.array([0, 0, np.inf], np.float32),
        leave_E=np.zeros(3, np.float32),
    )
    graph = search_graph(phone_graph(outputs, np.ones((3, 3), int), 0.5), ("A", "B"), outputs)
    weights = SearchWeights(lm_weight=1e-6, word_score=0.0, prior_scale=0.0, **WIDE)
    frames = np.full((3, 3), 1e-9)
    frames[0, 0], frames[1, 2], frames[2, :2] = 1.0, 1.0, 0.5
    scores = np.log(frames).astype(np.float32)
    several = hypotheses(GraphSearch(graph, weights), scores, 2, 0.15)
    assert {one.labels for one in several.found} == {(0, 0), (0, 1)}
    assert several.confidences == pytest.approx((1.0, 0.5), abs=1e-3)


def test_several_are_found_where_the_network_is_sure_of_nothing():
    """All paths are alike: determinised whole, such a lattice has no end in practice."""
    outputs, bigrams = OUTPUTS["symbols"]()
    graph = search_graph(phone_graph(outputs, bigrams, 0.5), ("A", "B", "SIL"), outputs)
    log_probs = log_softmax(0.05 * scored(outputs, 200, 0))
    search = GraphSearch(graph, WEIGHTS)
    several = hypotheses(search, log_probs, 4, 0.03)
    assert several.found[0].labels == search.find(log_probs).labels
    assert len({one.labels for one in several.found}) == 4
    scores = [one.score for one in several.found]
    assert scores == sorted(scores, reverse=True)


def test_of_what_is_too_long_there_are_not_several():
    outputs, bigrams = OUTPUTS["symbols"]()
    graph = search_graph(phone_graph(outputs, bigrams, 0.5), ("A", "B", "SIL"), outputs)
    search = GraphSearch(graph, WEIGHTS)
    with pytest.raises(PipelineError, match=r"longer than the 180 s .* cut it"):
        hypotheses(search, np.zeros((6001, 3), np.float32), 2, 0.03)
    assert hypotheses(search, np.zeros((0, 3), np.float32), 2, 0.03).confidences == ()


WORDS = {"AB": ((0, 1), (1,)), "A": ((0,),), "AA": ((0,),), "BA": ((1, 0),)}


def spoken_as(model, outputs):
    pronunciations = [
        (number, spelling)
        for number, word in enumerate(model.vocabulary)
        for spelling in WORDS.get(word, ())
    ]
    return Spoken(pronunciations, None if outputs.is_ctc else SIL, is_pause_needed=False)


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_words_are_the_best_of_all_sentences_with_and_without_pauses(kind, order):
    """Homophones, a word that begins another, several pronunciations, back-off."""
    outputs, _ = OUTPUTS[kind]()
    text = [["AB", "A"], ["A", "BA"], ["AA", "AB", "A"], ["BA"]]
    model = estimate(text, order, WORDS)
    graph = search_graph(
        word_graph(outputs, spoken_as(model, outputs), model), model.vocabulary, outputs
    )
    search = GraphSearch(graph, WEIGHTS)
    for seed in range(3):
        log_probs = scored(outputs, 9, seed)
        scores_TE = weighted_scores(outputs, log_probs)
        acoustic = {}

        def score(words, scores_TE=scores_TE, acoustic=acoustic):
            numbers = [model.number_of[word] for word in (*words, SENTENCE_END)]
            history, language = [model.number_of[SENTENCE_START]], 0.0
            for number in numbers:
                language += math.log(10) * model.log10_probability(history, number)
                history.append(number)
            ways = []
            pauses = [()] if outputs.is_ctc else [(), (SIL,)]
            options = [pauses]
            for word in words:
                options += [WORDS[word], pauses]
            for parts in itertools.product(*options):
                symbols = tuple(itertools.chain.from_iterable(parts))
                if symbols not in acoustic:
                    acoustic[symbols] = best_alignment(symbols, scores_TE, outputs)
                ways.append(acoustic[symbols])
            return max(ways) + WEIGHTS.lm_weight * language + WEIGHTS.word_score * len(words)

        sentences = [s for n in range(4) for s in itertools.product(WORDS, repeat=n)]
        best = max(map(score, sentences))
        found = search.find(log_probs)
        assert found.score >= best - 1e-3
        if len(found.labels) <= 3:
            assert score(search.texts(found.labels)) == pytest.approx(found.score, abs=1e-3)
            assert found.score == pytest.approx(best, abs=1e-3)


def test_a_stream_in_pieces_finds_what_the_whole_does():
    outputs, bigrams = OUTPUTS["three states"]()
    graph = search_graph(phone_graph(outputs, bigrams, 0.5), ("A", "B", "SIL"), outputs)
    search = GraphSearch(graph, WEIGHTS.model_copy(update={"beam": 8.0}))
    log_probs = scored(outputs, 200, 1)
    stream = search.stream()
    for start in range(0, 200, 7):
        stream.step(log_probs[start : start + 7])
        assert isinstance(stream.labels(), tuple)
    assert stream.end() == search.find(log_probs)


def test_nothing_heard_is_nothing_found():
    outputs, bigrams = OUTPUTS["symbols"]()
    graph = search_graph(phone_graph(outputs, bigrams, 0.5), ("A", "B", "SIL"), outputs)
    found = GraphSearch(graph, WEIGHTS).find(np.zeros((0, 3), np.float32))
    assert (found.labels, found.score) == ((), 0.0)


def test_a_long_stream_is_decided_at_its_pauses(monkeypatch):
    from evaluation.graph import search as module

    outputs, bigrams = OUTPUTS["symbols"]()
    graph = search_graph(phone_graph(outputs, bigrams, 0.5), ("A", "B", "SIL"), outputs)
    search = GraphSearch(graph, WEIGHTS)
    spoken = np.repeat([2, 0, 1, 0, 2], 12)
    certain = log_softmax(9.0 * np.eye(3)[np.tile(spoken, 8)])
    whole = search.find(certain)
    monkeypatch.setattr(module, "MAY_FORGET_FRAMES", 50)
    monkeypatch.setattr(module, "_LOOK_EVERY_FRAMES", 6)
    in_one_piece = search.find(certain)
    stream = search.stream()
    longest = 0
    for row in certain:
        stream.step(row[None])
        longest = max(longest, stream._num_frames)
    found = stream.end()
    assert found == in_one_piece  # decided at the same frames
    spelled = [label for label in found.labels if label != SIL]
    assert spelled == [label for label in whole.labels if label != SIL] == [0, 1, 0] * 8
    assert longest < 120


def test_states_of_unknown_context_count_as_the_best_of_them():
    """Two states of symbol 0 and one each of the others, none with a context."""
    states = StateInventory(
        states_per_phone=1,
        phones=(0, 1, 2, 0),
        positions=(0,) * 4,
        left=((),) * 4,
        right=((),) * 4,
    )
    outputs, bigrams = outputs_with(states, 0.03)
    graph = search_graph(phone_graph(outputs, bigrams, 0.5), ("A", "B", "SIL"), outputs)
    search = GraphSearch(graph, WEIGHTS.model_copy(update={"prior_scale": 0.0}))
    scores = np.log(np.array([[0.1, 0.2, 0.1, 0.6]], np.float32))
    assert search.emissions(scores)[0] == pytest.approx(np.log([0.6, 0.2, 0.1]))
    assert search(np.repeat(scores, 5, axis=0)) == [0]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("arcs", (0, 3, 99), "leads to no state"),
        ("arcs", (0, 0, 99), "output that is not there"),
        ("arcs", (0, 1, 99), "word that is not there"),
        ("emission_of_output", (0, None, 7), "belongs to no state"),
        ("arcs_of_states", (0, None, 5000), "other arcs"),
    ],
)
def test_a_damaged_graph_is_refused_before_it_is_searched(name, value, message):
    outputs, bigrams = OUTPUTS["symbols"]()
    graph = search_graph(phone_graph(outputs, bigrams, 0.5), ("A", "B", "SIL"), outputs)
    arrays = {key: array.copy() for key, array in graph.arrays().items()}
    assert from_arrays(graph.size, arrays, "here").arrays().keys() == arrays.keys()
    row, column, number = value
    arrays[name][row if column is None else (row, column)] = number
    with pytest.raises(PipelineError, match=message):
        from_arrays(graph.size, arrays, "here")


@pytest.mark.parametrize("steps", [(0,), (1, 0)])
def test_a_graph_whose_search_would_never_end_is_refused(steps):
    """Arcs that take no frame and lead back: a gain each time round, for ever."""
    outputs, bigrams = OUTPUTS["symbols"]()
    graph = search_graph(phone_graph(outputs, bigrams, 0.5), ("A", "B", "SIL"), outputs)
    arrays = {key: array.copy() for key, array in graph.arrays().items()}
    first_arcs = np.cumsum(arrays["arcs_of_states"]) - arrays["arcs_of_states"]
    for state, target in enumerate(steps):
        arrays["arcs"][first_arcs[state]] = (0, 0, np.float32(-5.0).view(np.int32), target)
    with pytest.raises(PipelineError, match="returns to its state without a frame"):
        from_arrays(graph.size, arrays, "here")
