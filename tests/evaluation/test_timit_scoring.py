"""TIMIT's scoring, written out by hand: 61 phones are trained as 48 and scored as 39."""

import pytest

from evaluation.scoring import count_edits, scored_transcript
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.labels import labeller
from featurize.phones import PHONE_48_TO_39, PHONE_61_TO_48, TIMIT_48, TIMIT_61

# Lee & Hon 1989, table 3: the classes within which confusions do not count.
CLASSES = {
    "aa": "aa ao", "ae": "ae", "ah": "ah ax ax-h", "aw": "aw", "ay": "ay", "b": "b", "ch": "ch",
    "d": "d", "dh": "dh", "dx": "dx", "eh": "eh", "er": "er axr", "ey": "ey", "f": "f", "g": "g",
    "hh": "hh hv", "ih": "ih ix", "iy": "iy", "jh": "jh", "k": "k", "l": "l el", "m": "m em",
    "n": "n en nx", "ng": "ng eng", "ow": "ow", "oy": "oy", "p": "p", "r": "r", "s": "s",
    "sh": "sh zh", "sil": "pcl tcl kcl bcl dcl gcl h# pau epi", "t": "t", "th": "th", "uh": "uh",
    "uw": "uw ux", "v": "v", "w": "w", "y": "y", "z": "z",
}  # fmt: skip


@pytest.fixture(scope="module")
def inventory():
    splits = SplitsConfig(train=("train",), dev=("dev",))
    return labeller(FeaturizeConfig(corpus="timit", splits=splits, labels="phones")).inventory


def scored(phones_61, inventory):
    ids = [
        inventory.symbols.index(PHONE_61_TO_48[phone])
        for phone in phones_61.split()
        if phone != "q"
    ]
    return scored_transcript(ids, inventory).symbols


def test_the_classes_are_39_and_hold_every_phone_but_the_glottal_stop(inventory):
    members = {phone: name for name, phones in CLASSES.items() for phone in phones.split()}
    assert len(CLASSES) == 39
    assert members.keys() == set(TIMIT_61) - {"q"}
    assert {phone: scored(phone, inventory) for phone in members} == {
        phone: (name,) for phone, name in members.items()
    }
    assert scored("q", inventory) == ()
    assert inventory.symbols == TIMIT_48
    assert tuple(inventory.scored_as) == tuple(PHONE_48_TO_39[phone] for phone in TIMIT_48)


def test_a_sentence_folded_by_hand(inventory):
    """The start and end of sa1: she had your dark suit ... all year."""
    heard = "h# sh iy hv ae dcl y axr dcl d aa r kcl k s ux tcl q ao l y ih er h#"
    folded = "sil sh iy hh ae sil y er sil d aa r sil k s uw sil aa l y ih er sil"
    assert " ".join(scored(heard, inventory)) == folded


@pytest.mark.parametrize(
    ("reference", "hypothesis", "substitutions", "insertions", "deletions"),
    [
        # All within a class: ix for ih, ax for ah, el for l, zh for sh, a pause for a closure.
        ("h# ih ah l sh tcl t h#", "pau ix ax el zh pcl t h#", 0, 0, 0),
        # The glottal stop is no phone, on either side.
        ("h# q ae t h#", "h# ae q t h#", 0, 0, 0),
        # Across classes: ey for iy; en is an n, not an m.
        ("h# iy m h#", "h# ey en h#", 2, 0, 0),
        # A closure left out before its stop is a silence deleted.
        ("h# bcl b iy h#", "h# b iy h#", 0, 0, 1),
        ("h# b iy h#", "h# bcl b iy s h#", 0, 2, 0),
        # Equal neighbours stay two: the closure beside the silence counts on its own.
        ("h# iy tcl h#", "h# iy h#", 0, 0, 1),
    ],
)
def test_errors_counted_by_hand(
    inventory, reference, hypothesis, substitutions, insertions, deletions
):
    edits = count_edits(scored(reference, inventory), scored(hypothesis, inventory))
    assert (edits.substitutions, edits.insertions, edits.deletions) == (
        substitutions,
        insertions,
        deletions,
    )
