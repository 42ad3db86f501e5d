import gzip
import itertools
import math

import kenlm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.arpa import arpa_bytes, read_arpa
from evaluation.kneser_ney import estimate
from evaluation.ngrams import NgramModel
from featurize.stage import Location

SMALL = [["a", "b"], ["a", "c"], ["a", "b"]]
sentences = st.lists(st.lists(st.sampled_from("abcde"), max_size=6), min_size=1, max_size=12)


def numbers(model: NgramModel, words):
    return [model.vocabulary.index(word) for word in words]


def probability(model, history, word):
    """p(word | history) as an ARPA file means it: the longest n-gram there, else back off."""
    return 10 ** model.log10_probability(numbers(model, history), *numbers(model, [word]))


def entry(model, *words):
    """Probability and back-off weight of an n-gram that is there."""
    order = model.orders[len(words) - 1]
    place = model.place(numbers(model, words))
    assert place is not None
    return 10 ** order.log10_probability_N[place], 10 ** order.log10_backoff_N[place]


def test_a_bigram_model_by_hand():
    """The fallback discounts 0.5, 1 and 1.5 apply: nothing occurs four times.

    Unigram counts are of different predecessors: a, b and c one each, </s> two, so 5 together;
    each of the six words (with z and <unk>) has a sixth of the left-over 3 * 0.5 / 5 + 1 / 5.
    """
    model = estimate(SMALL, 2, ["z"])
    left = (3 * 0.5 + 1.0) / 5
    expected = {
        ("a",): (1 - 0.5) / 5 + left / 6,
        ("z",): left / 6,
        ("<unk>",): left / 6,
        ("</s>",): (2 - 1) / 5 + left / 6,
    }
    for ngram, value in expected.items():
        assert entry(model, *ngram)[0] == pytest.approx(value)
    # After a: b twice, c once.
    left_after_a = (1.0 + 0.5) / 3
    assert entry(model, "a")[1] == pytest.approx(left_after_a)
    assert entry(model, "a", "b")[0] == pytest.approx((2 - 1) / 3 + left_after_a * expected["a",])
    assert probability(model, ["a"], "z") == pytest.approx(left_after_a * left / 6)
    # <s> is in no place but the first, where it is certain.
    assert entry(model, "<s>")[1] == pytest.approx(1.5 / 3)


def test_discounts_come_from_counts_of_counts():
    """Words once, twice, three and four times: t = (4, 3, 2, 1), so Y = 4 / (4 + 2 * 3) = 0.4."""
    times = {"a": 1, "b": 1, "c": 1, "d": 1, "e": 2, "f": 2, "g": 2, "h": 3, "i": 3, "j": 4}
    # One sentence; its end, once, is a fifth word that occurs once.
    model = estimate([[w for w, n in times.items() for _ in range(n)]], 1, [])
    y = 5 / (5 + 2 * 3)
    d1, d2, d3 = 1 - 2 * y * 3 / 5, 2 - 3 * y * 2 / 3, 3 - 4 * y * 1 / 2
    total = sum(times.values()) + 1
    left = (5 * d1 + 3 * d2 + 3 * d3) / total
    for word, n in times.items():
        discount = (d1, d2, d3)[min(n, 3) - 1]
        expected = (n - discount) / total + left / 12
        assert entry(model, word)[0] == pytest.approx(expected)


@settings(max_examples=60)
@given(sentences, st.integers(1, 4), st.integers(1, 3))
def test_every_context_sums_to_one_whatever_is_left_out(text, order, min_count):
    model = estimate(text, order, ["f", "g"], min_count)
    words = [word for word in model.vocabulary if word != "<s>"]
    assert set("fg") | {"</s>", "<unk>"} <= set(words)
    seen = {
        tuple(model.vocabulary[number] for number in row[:-1])
        for length in range(1, model.order + 1)
        for row in model.word_numbers(length)
    }
    for context in [*seen, ("g", "f"), ("<s>", "f")]:
        total = sum(probability(model, context, word) for word in words)
        assert total == pytest.approx(1.0)


@settings(max_examples=20)
@given(sentences, st.integers(2, 4), st.lists(st.sampled_from("abcdexyz"), max_size=5))
def test_kenlm_reads_back_the_same_scores(tmp_path_factory, text, order, asked):
    model = estimate(text, order, ["f"])
    file = tmp_path_factory.mktemp("arpa") / "lm.arpa"
    file.write_bytes(arpa_bytes(model))
    expected = 0.0
    for position in range(len(asked) + 1):
        known = [w if w in model.vocabulary else "<unk>" for w in ["<s>", *asked, "</s>"]]
        history = known[: position + 1]
        expected += math.log10(probability(model, history, known[position + 1]))
    config = kenlm.Config()
    config.arpa_complain = kenlm.ARPALoadComplain.NONE
    config.show_progress = False
    if model.order > 1:  # which KenLM asks for
        assert kenlm.Model(str(file), config).score(" ".join(asked)) == pytest.approx(
            expected, abs=1e-4
        )
    # What a search asks is the same model, from a compressed file too.
    compressed = file.with_suffix(".gz")
    compressed.write_bytes(gzip.compress(file.read_bytes()))
    read = read_arpa(Location.of(compressed))
    assert read.vocabulary == model.vocabulary
    history, total = numbers(read, ["<s>"]), 0.0
    for word in [*asked, "</s>"]:
        number = numbers(read, [word if word in read.vocabulary else "<unk>"])
        total += read.log10_probability(history, *number)
        history += number
    assert total == pytest.approx(expected, abs=1e-4)


def test_seldom_ngrams_are_left_out_and_their_mass_goes_to_shorter_ones():
    text = [["a", "b"]] * 3 + [["a", "c"]]
    model = estimate(text, 2, [], min_count=2)
    assert model.place(numbers(model, ["a", "b"])) is not None
    assert model.place(numbers(model, ["a", "c"])) is None
    seen, backoff = entry(model, "a", "b")[0], entry(model, "a")[1]
    # Of four: b has three less its discount; c's one and both discounts are left over.
    assert backoff == pytest.approx((4 - (3 - 1.5)) / 4)
    assert seen == pytest.approx((3 - 1.5) / 4 + backoff * entry(model, "b")[0])


def test_longer_ngrams_foresee_their_text_better():
    text = [list("abcab"), list("abcabc"), list("bcabca"), list("cab")] * 3
    likelihood = []
    for order in (1, 2, 3):
        model = estimate(text, order, [])
        likelihood.append(
            sum(
                math.log(probability(model, ["<s>", *s[:i]], w))
                for s, w, i in itertools.chain.from_iterable(
                    ((s, w, i) for i, w in enumerate([*s, "</s>"])) for s in text
                )
            )
        )
    assert likelihood == sorted(likelihood)


@pytest.mark.parametrize("text", [[], [["<s>", "a"]]])
def test_what_cannot_be_estimated_is_refused(text):
    with pytest.raises(ValueError, match=r"no sentence|reserved"):
        estimate(text, 2, [])


def test_a_sentence_without_words_is_an_end():
    model = estimate([[]], 2, ["a"])
    assert entry(model, "<s>", "</s>")[0] > 0.5
