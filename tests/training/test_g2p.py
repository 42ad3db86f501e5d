import kaldialign
import numpy as np
import pytest

from featurize.lexicon import load_lexicon
from training.align.g2p import GraphemeModel


@pytest.fixture(scope="module")
def held_out():
    """A model of nineteen twentieths of CMUdict, and the rest."""
    lexicon = load_lexicon(None)
    words = sorted(lexicon.pronunciations)
    unseen = set(np.random.default_rng(0).choice(words, len(words) // 20, replace=False))
    known = {word: lexicon.lookup_all(word) for word in words if word not in unseen}
    return GraphemeModel(known), {word: lexicon.lookup_all(word) for word in sorted(unseen)}


def test_words_never_seen_are_mostly_said_right(held_out):
    model, unseen = held_out
    errors = phones = right = among = 0
    words = [word for word in unseen if word.isalpha()][::20]
    for word in words:
        found = model(word)
        counts = [kaldialign.edit_distance(said, found[0])["total"] for said in unseen[word]]
        errors, phones = errors + min(counts), phones + len(unseen[word][0])
        right += min(counts) == 0
        among += any(said in unseen[word] for said in found)
    assert errors / phones < 0.09
    assert right / len(words) > 0.65
    assert among / len(words) > 0.78


def test_what_is_no_word_is_not_guessed(held_out):
    model, _ = held_out
    assert model("R2D2") == model("") == model("É") == []
    assert model("O'SHAUGHNESSEY")[0][0] == "OW"


def test_a_lexicon_without_doubt_is_learnt_by_heart():
    listed = {f"{a}{b}{c}": ((a, b, c, "E"),) for a in "BDFG" for b in "AIOU" for c in "KLMN"}
    missing = listed.pop("FIL")
    assert GraphemeModel(listed)("FIL") == [missing[0]]
