import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.scoring import (
    Bootstrap,
    count_edits,
    primary_rate,
    scored_transcript,
)
from featurize.schema import LabelInventory
from featurize.stage import PipelineError

CHARACTERS = LabelInventory(
    kind="characters",
    symbols=(" ", "A", "B", "?"),
    scored_as=(" ", "A", "B", None),
    word_boundary=0,
)
FOLDED = LabelInventory(
    kind="alignment",
    symbols=("sil", "cl", "aa", "ao", "q"),
    scored_as=("sil", "sil", "aa", "aa", None),
)


def test_edits_by_hand():
    # a b c d -> a x c d e: one substitution, one insertion.
    counts = count_edits("abcd", "axcde")
    assert (counts.substitutions, counts.insertions, counts.deletions) == (1, 1, 0)
    assert (counts.errors, counts.reference_length) == (2, 4)


def test_empty_reference_and_empty_hypothesis():
    assert count_edits((), ("a", "b")).insertions == 2
    assert count_edits((), ("a", "b")).reference_length == 0
    assert count_edits(("a", "b", "c"), ()).deletions == 3
    assert count_edits((), ()).errors == 0


def edit_distance(reference, hypothesis):
    """Levenshtein's distance, from its recurrence."""
    row = list(range(len(hypothesis) + 1))
    for i, wanted in enumerate(reference, 1):
        above, row = row, [i]
        for j, found in enumerate(hypothesis, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (wanted != found)))
    return row[-1]


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
def test_fewest_edits(reference, hypothesis):
    counts = count_edits(reference, hypothesis)
    assert counts.errors == edit_distance(reference, hypothesis)
    assert counts.insertions - counts.deletions == len(hypothesis) - len(reference)


def test_characters_give_text_words_and_spaces():
    transcript = scored_transcript([1, 2, 0, 2, 3, 1], CHARACTERS)
    assert transcript.symbols == ("A", "B", " ", "B", "A")
    assert transcript.words == ("AB", "BA")
    assert transcript.text == "AB BA"


def test_stray_spaces_make_no_words_but_are_characters():
    transcript = scored_transcript([0, 1, 0, 0, 2, 0], CHARACTERS)
    assert transcript.words == ("A", "B")
    assert transcript.symbols == (" ", "A", " ", " ", "B", " ")


def test_cer_counts_the_space():
    reference = scored_transcript([1, 0, 2], CHARACTERS)
    hypothesis = scored_transcript([1, 2], CHARACTERS)
    assert count_edits(reference.symbols, hypothesis.symbols).errors == 1
    assert count_edits(reference.words, hypothesis.words).errors == 2


def test_phones_fold_and_drop_without_joining_neighbours():
    transcript = scored_transcript([0, 1, 2, 4, 3], FOLDED)
    assert transcript.symbols == ("sil", "sil", "aa", "aa")
    assert transcript.words is None
    assert transcript.text == "sil sil aa aa"
    assert (
        count_edits(transcript.symbols, scored_transcript([1, 0, 3, 2], FOLDED).symbols).errors == 0
    )


def test_primary_rates():
    assert [primary_rate(kind) for kind in ("characters", "phones", "alignment")] == [
        "cer",
        "per",
        "per",
    ]


def test_rate_is_pooled_not_averaged():
    estimate = Bootstrap(2, 200, 0).error_rate(np.array([1, 0]), np.array([1, 9]))
    assert estimate.value == pytest.approx(0.1)


def test_one_utterance_has_no_spread():
    estimate = Bootstrap(1, 100, 0).error_rate(np.array([3]), np.array([10]))
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((0.3, 0.3, 0.3))


def test_interval_matches_the_normal_approximation():
    rng = np.random.default_rng(1)
    lengths = np.full(2000, 10)
    errors = rng.binomial(10, 0.2, 2000)
    estimate = Bootstrap(2000, 4000, 7).error_rate(errors, lengths)
    deviation = errors.std() / 10 / np.sqrt(2000)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * deviation, rel=0.06)
    assert estimate.low < estimate.value < estimate.high


def test_agrees_with_kaldialigns_bootstrap():
    import kaldialign

    rng = np.random.default_rng(3)
    references = [rng.integers(0, 4, rng.integers(3, 20)).tolist() for _ in range(300)]
    hypotheses = [[s for s in r if rng.random() > 0.2] for r in references]
    edits = [count_edits(r, h) for r, h in zip(references, hypotheses, strict=True)]
    ours = Bootstrap(300, 10_000, 0).error_rate(
        np.array([e.errors for e in edits]), np.array([e.reference_length for e in edits])
    )
    theirs = kaldialign.bootstrap_wer_ci(references, hypotheses)
    assert ours.value == pytest.approx(theirs["wer"], abs=2e-3)
    assert ours.low == pytest.approx(theirs["ci95min"], abs=3e-3)
    assert ours.high == pytest.approx(theirs["ci95max"], abs=3e-3)


def test_seed_repeats_and_blocks_do_not_matter(monkeypatch):
    errors, lengths = np.arange(50) % 4, np.full(50, 5)
    whole = Bootstrap(50, 300, 9).error_rate(errors, lengths)
    monkeypatch.setattr("evaluation.scoring._RESAMPLED_VALUES", 350)
    assert Bootstrap(50, 300, 9).error_rate(errors, lengths) == whole
    assert Bootstrap(50, 300, 10).error_rate(errors, lengths) != whole


def test_paired_difference_is_narrower_than_unpaired():
    rng = np.random.default_rng(0)
    lengths = np.full(400, 20)
    hardness = rng.integers(0, 15, 400)
    one, other = hardness + rng.integers(0, 2, 400), hardness
    bootstrap = Bootstrap(400, 1000, 0)
    difference = bootstrap.difference(one, other, lengths)
    alone = bootstrap.error_rate(one, lengths)
    assert difference.value == pytest.approx((one - other).sum() / lengths.sum())
    assert difference.low > 0
    assert difference.high - difference.low < 0.3 * (alone.high - alone.low)


def test_same_model_differs_by_nothing():
    errors, lengths = np.array([1, 2, 0]), np.array([3, 3, 3])
    difference = Bootstrap(3, 100, 0).difference(errors, errors, lengths)
    assert (difference.low, difference.value, difference.high) == (0, 0, 0)


def test_some_empty_references_are_fine_and_all_empty_is_said():
    bootstrap = Bootstrap(2, 100, 0)
    estimate = bootstrap.error_rate(np.array([1, 1]), np.array([0, 4]))
    assert estimate.value == pytest.approx(0.5)
    assert np.isfinite(estimate.high)
    with pytest.raises(PipelineError, match="no utterance has a reference symbol"):
        bootstrap.error_rate(np.array([1, 1]), np.array([0, 0]))
