import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.arpa import arpa_bytes
from evaluation.config import ViterbiConfig, WordSearchConfig
from evaluation.kneser_ney import UNKNOWN, estimate
from evaluation.language_model import LanguageModel
from evaluation.scoring import count_edits
from evaluation.viterbi import build_graph
from evaluation.word_lexicon import WordLexicon
from evaluation.word_search import LexiconTree, WordSearch
from evaluation.word_topology import FrameOutputs, ctc_topology, frame_topology
from featurize.schema import LabelInventory
from featurize.stage import Location, PipelineError

PHONES = LabelInventory(kind="phones", symbols=("P", "T", "K"), scored_as=("P", "T", "K"))
ALIGNED = LabelInventory(kind="alignment", symbols=("sil", "a", "b"), scored_as=("sil", "a", "b"))
LETTERS = LabelInventory(
    kind="characters", symbols=(" ", "A", "B"), scored_as=(" ", "A", "B"), word_boundary=0
)
SENTENCES = [["X", "Y"], ["Y", "X", "X"], ["Z"], ["X"]]
WIDE = WordSearchConfig(beam_size=10_000, beam_threshold=1e4, lm_weight=0.7, word_score=-0.4)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    file = Location.of(tmp_path_factory.mktemp("lm") / "xyz.arpa")
    file.write_bytes(arpa_bytes(estimate(SENTENCES, 2, [])))
    return LanguageModel(file)


def lexicon_of(language_model, spellings):
    words = language_model.summary.words
    return WordLexicon((*words, UNKNOWN), (*(spellings.get(word) for word in words), None))


def random_log_probs(seed, num_frames, num_outputs):
    scores = 2 * np.random.default_rng(seed).normal(size=(num_frames, num_outputs))
    return (scores - np.log(np.exp(scores).sum(1, keepdims=True))).astype(np.float32)


def score_of_words(language_model, words):
    return WIDE.lm_weight * language_model.log_probability(words) + WIDE.word_score * len(words)


def segmentations(segments, spellings):
    """Word sequences that a CTC path's symbols (with the number of frames of each) spell.

    A word's last symbol may come again, in one frame: the twin after a blank.
    """
    if not segments:
        yield ()
        return
    for word, spelling in spellings.items():
        length = len(spelling)
        if tuple(symbol for symbol, _ in segments[:length]) != spelling:
            continue
        for rest in segmentations(segments[length:], spellings):
            yield (word, *rest)
        if segments[length : length + 1] == [(spelling[-1], 1)]:
            for rest in segmentations(segments[length + 1 :], spellings):
                yield (word, *rest)


def best_ctc_score(log_probs, spellings, language_model):
    num_frames, num_outputs = log_probs.shape
    best = {}
    for path in itertools.product(range(num_outputs), repeat=num_frames):
        acoustic = float(log_probs[np.arange(num_frames), path].sum())
        runs = [(symbol, len(list(run))) for symbol, run in itertools.groupby(path)]
        segments = [(symbol, length) for symbol, length in runs if symbol != num_outputs - 1]
        for words in segmentations(segments, spellings):
            best[words] = max(best.get(words, -math.inf), acoustic)
    return max(score + score_of_words(language_model, words) for words, score in best.items())


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), num_frames=st.integers(1, 5))
def test_ctc_search_finds_the_best_words_of_all(language_model, seed, num_frames):
    # Words that end alike, one inside another, one of a single phone, one with a double phone.
    spellings = {"X": (0, 1), "Y": (1,), "Z": (2, 2, 1)}
    tree = LexiconTree(lexicon_of(language_model, spellings), language_model, PHONES)
    log_probs = random_log_probs(seed, num_frames, 4)
    found = WordSearch(tree, ctc_topology(PHONES), WIDE).find(log_probs)
    expected = best_ctc_score(log_probs, spellings, language_model)
    assert found.score == pytest.approx(expected, abs=1e-3)


def compositions(total, parts):
    if parts == 0:
        if total == 0:
            yield ()
        return
    for first in range(1, total - parts + 2):
        for rest in compositions(total - first, parts - 1):
            yield (first, *rest)


def frame_sequences(spellings, max_words):
    """Word sequences with their symbols, silence or none before, between and after words.

    With each symbol comes whether it ends a word.
    """
    for number in range(max_words + 1):
        for words in itertools.product(spellings, repeat=number):
            for pauses in itertools.product((False, True), repeat=number + 1):
                symbols = [(0, False)] * pauses[0]
                for word, pause in zip(words, pauses[1:], strict=True):
                    *inner, last = spellings[word]
                    symbols += [*((s, False) for s in inner), (last, True)]
                    symbols += [(0, False)] * pause
                yield words, symbols


def frame_path_score(emission, stay, leave, symbols, durations):
    path = np.repeat([symbol for symbol, _ in symbols], durations)
    score = emission[np.arange(len(path)), path].sum()
    score += sum((d - 1) * stay[s] for (s, _), d in zip(symbols, durations, strict=True))
    for ((one, is_last), (other, _)), duration in zip(
        itertools.pairwise(symbols), durations[:-1], strict=True
    ):
        # A phone after itself counts as one that lasts, save after a twin.
        continues = one == other and not (is_last and duration > 1)
        score += stay[one] if continues else leave[one]
    return score


BIGRAMS = np.array([[0, 3, 2, 1], [1, 0, 4, 2], [2, 1, 0, 3], [3, 2, 1, 0]])


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), num_frames=st.integers(1, 5))
def test_frame_search_finds_the_best_words_of_all(language_model, seed, num_frames):
    spellings = {"X": (1, 2), "Y": (2, 1), "Z": (2, 2, 1)}
    frame_counts = np.array([30, 21, 15])
    outputs = FrameOutputs(np.arange(3), np.zeros(3, int), frame_counts, BIGRAMS)
    tree = LexiconTree(lexicon_of(language_model, spellings), language_model, ALIGNED)
    log_probs = random_log_probs(seed, num_frames, 3)
    search = WordSearch(tree, frame_topology(ALIGNED, outputs, 0.3), WIDE)
    # The phone search's durations and priors.
    graph = build_graph(BIGRAMS, frame_counts, ViterbiConfig())
    emission = log_probs - 0.3 * graph.prior_S
    stay = graph.transition_SS.diagonal()
    leave = np.log1p(-np.exp(stay))
    best = max(
        frame_path_score(emission, stay, leave, symbols, durations)
        + score_of_words(language_model, words)
        for words, symbols in frame_sequences(spellings, num_frames // 2)
        for durations in compositions(num_frames, len(symbols))
    )
    assert search.find(log_probs).score == pytest.approx(best, abs=1e-3)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), num_frames=st.integers(2, 6))
def test_parts_of_phones_follow_one_another(language_model, seed, num_frames):
    """Phones of two states, of which one comes in two contexts; silence has two states as well."""
    spellings = {"X": (1,), "Y": (2, 1)}
    # Output: silence's two states, then a.0, a.1, b.0, b.1 in one context and in another.
    phones, parts = np.array([0, 0, 1, 1, 2, 2, 2]), np.array([0, 1, 0, 1, 0, 1, 1])
    frame_counts = np.array([20, 10, 24, 9, 12, 7, 6])
    outputs = FrameOutputs(phones, parts, frame_counts, BIGRAMS)
    tree = LexiconTree(lexicon_of(language_model, spellings), language_model, ALIGNED, 2)
    log_probs = random_log_probs(seed, num_frames, 7)
    found = WordSearch(tree, frame_topology(ALIGNED, outputs, 0.3), WIDE).find(log_probs)
    # By hand: silence, a.0, a.1, b.0, b.1, with what belongs together added up.
    groups = ([0, 1], [2], [3], [4], [5, 6])
    counts = np.array([frame_counts[group].sum() for group in groups])
    posterior = np.stack([np.exp(log_probs[:, group]).sum(1) for group in groups], axis=1)
    smoothed = counts + 0.5
    # The second state of silence has no token, but its place in the smoothing.
    emission = np.log(posterior) - 0.3 * np.log(smoothed / (smoothed.sum() + 0.5))
    duration = np.maximum(counts / BIGRAMS[:3].sum(1)[[0, 1, 1, 2, 2]], 1.5)
    stay, leave = np.log1p(-1 / duration), -np.log(duration)
    states = {"X": (1, 2), "Y": (3, 4, 1, 2)}
    best = max(
        frame_path_score(emission, stay, leave, symbols, durations)
        + score_of_words(language_model, words)
        for words, symbols in frame_sequences(states, num_frames // 2)
        for durations in compositions(num_frames, len(symbols))
    )
    assert found.score == pytest.approx(best, abs=1e-3)


def frames(*outputs, num_outputs):
    log_probs = np.full((len(outputs), num_outputs), -9.0, np.float32)
    log_probs[np.arange(len(outputs)), outputs] = -0.01
    return log_probs


def test_the_last_phone_of_a_word_may_last(language_model):
    tree = LexiconTree(lexicon_of(language_model, {"X": (0, 1), "Z": (2,)}), language_model, PHONES)
    search = WordSearch(tree, ctc_topology(PHONES), WordSearchConfig(lm_weight=0, word_score=0))
    found = search.find(frames(0, 1, 1, 1, 2, 2, num_outputs=4))
    assert found.words == ("X", "Z")
    assert found.score == pytest.approx(-0.06, abs=1e-4)


def test_characters_need_no_space_at_the_end(language_model):
    spellings = {"X": (1, 2), "Z": (1,)}
    tree = LexiconTree(lexicon_of(language_model, spellings), language_model, LETTERS)
    search = WordSearch(tree, ctc_topology(LETTERS), WordSearchConfig(lm_weight=0, word_score=0))
    # "AB  A" with a blank (3) and doubled frames; then the same with a space at the end.
    spoken = (1, 2, 2, 3, 0, 3, 0, 1, 1)
    for outputs in (spoken, (*spoken, 0), (0, *spoken, 3)):
        found = search.find(frames(*outputs, num_outputs=4))
        assert found.words == ("X", "Z")
        assert found.score == pytest.approx(-0.01 * len(outputs), abs=1e-4)


def test_of_words_that_sound_alike_the_model_chooses(language_model):
    spellings = {"X": (0,), "Y": (0,), "Z": (0,)}
    tree = LexiconTree(lexicon_of(language_model, spellings), language_model, PHONES)
    search = WordSearch(tree, ctc_topology(PHONES), WordSearchConfig())
    likely = max("XYZ", key=lambda word: language_model.log_probability([word]))
    assert search(frames(0, num_outputs=4)) == (likely,)


def test_no_frames_are_no_words(language_model):
    tree = LexiconTree(lexicon_of(language_model, {"X": (0,)}), language_model, PHONES)
    search = WordSearch(tree, ctc_topology(PHONES), WordSearchConfig())
    assert search(np.zeros((0, 4), np.float32)) == ()


@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_pieces_give_what_the_whole_gives(language_model, seed, cuts):
    spellings = {"X": (0, 1), "Y": (1,), "Z": (2, 2, 1)}
    tree = LexiconTree(lexicon_of(language_model, spellings), language_model, PHONES)
    search = WordSearch(tree, ctc_topology(PHONES), WordSearchConfig())
    log_probs = random_log_probs(seed, 60, 4)
    stream = search.stream()
    for start, stop in itertools.pairwise([0, *sorted(cuts), 60]):
        partial = stream.accept(log_probs[start:stop])
        assert set(partial) <= {"X", "Y", "Z"}
    assert stream.finish() == search.find(log_probs)


def test_a_long_stream_forgets_its_past_and_keeps_its_words(language_model, monkeypatch):
    spellings = {"X": (0, 1), "Y": (1,), "Z": (2, 2, 1)}
    tree = LexiconTree(lexicon_of(language_model, spellings), language_model, PHONES)
    search = WordSearch(tree, ctc_topology(PHONES), WordSearchConfig())
    log_probs = 5 * random_log_probs(3, 600, 4)  # far apart, as a recogniser's are
    whole = search(log_probs)
    assert len(whole) > 50
    monkeypatch.setattr("evaluation.word_search._MAX_BUFFERED_FRAMES", 200)
    monkeypatch.setattr("evaluation.word_search._KEPT_FRAMES", 100)
    stream = search.stream()
    for start in range(0, 600, 25):
        decided = stream._decided
        stream.accept(log_probs[start : start + 25])
        assert stream._num_buffered <= 200 + 25
        assert stream._decided[: len(decided)] == decided
    # The library scales the scores of what it keeps anew, after which the search may go another
    # way where two are close: one stretch of two or three words here.
    assert count_edits(whole, stream.finish().words).errors <= 0.03 * len(whole)


def test_a_frame_model_without_silence_is_refused():
    outputs = FrameOutputs(np.arange(3), np.zeros(3, int), np.ones(3, int), BIGRAMS)
    with pytest.raises(PipelineError, match="need one of the symbols sil, SIL"):
        frame_topology(PHONES, outputs, 0.0)
