"""The TIMIT reader: any letter case, the standard subsets, damaged files."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from featurize.corpora.scan import scan_corpus
from featurize.corpora.text import normalise_text
from featurize.corpora.timit_speakers import CORE_TEST_SPEAKERS, DEV_SPEAKERS
from featurize.stage import Location, PipelineError


@pytest.fixture
def corpus(synthetic_corpus, tmp_path) -> Path:
    """A copy to damage."""
    target = tmp_path / "corpus"
    shutil.copytree(synthetic_corpus / "timit", target)
    return target


def scan(root, *subsets):
    return scan_corpus("timit", Location.of(root), subsets or ("train", "dev", "test"))


def test_the_standard_lists():
    assert len(set(DEV_SPEAKERS)) == 50
    assert len(set(CORE_TEST_SPEAKERS)) == 24
    assert not set(DEV_SPEAKERS) & set(CORE_TEST_SPEAKERS)
    # The core test set is two men and a woman of each of eight regions.
    assert [speaker[0] for speaker in CORE_TEST_SPEAKERS].count("F") == 8


def test_subsets_are_the_standard_speakers(corpus):
    listing = scan(corpus)
    assert listing.rejects == ()
    for entry in listing.entries:
        expected = (
            "dev"
            if entry.speaker_id in DEV_SPEAKERS
            else "test"
            if entry.speaker_id in CORE_TEST_SPEAKERS
            else "train"
        )
        assert entry.subset == expected
        assert entry.utterance_id.startswith(f"{entry.speaker_id}_SI")
        assert entry.chapter_id.startswith("DR")
        assert entry.audio.startswith("TRAIN/" if expected == "train" else "TEST/")
        assert set(entry.text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ' ")
    complete = scan(corpus, "test-complete")
    assert {entry.speaker_id for entry in complete.entries} == {
        entry.speaker_id for entry in listing.entries if entry.subset != "train"
    }
    both = scan(corpus, "dev", "test-complete")
    assert {entry.subset for entry in both.entries} == {"dev", "test-complete"}
    assert len(both.entries) == len(complete.entries)


def recased(source: Path, target: Path, seed: int) -> None:
    """Copy a tree with every letter of every name in random case."""
    rng = np.random.default_rng(seed)
    names = {}

    def recase(part):
        if part not in names:
            names[part] = "".join(c.upper() if rng.integers(2) else c.lower() for c in part)
        return names[part]

    for path in sorted(source.rglob("*.*")):
        if path.is_file() and path.parent != source:
            copy = target.joinpath(*map(recase, path.relative_to(source).parts))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)


@pytest.mark.parametrize("seed", [0, 1])
def test_any_mix_of_letter_case_below_any_timit_folder(corpus, tmp_path, seed):
    recased(corpus, tmp_path / "disc" / "timit" / "TIMIT", seed)
    expected, found = scan(corpus), scan(tmp_path / "disc")
    assert found.rejects == ()

    def essence(listing):
        return [(e.utterance_id, e.subset, e.chapter_id, e.text) for e in listing.entries]

    assert essence(found) == essence(expected)
    assert all(found.root.child(entry.audio).exists() for entry in found.entries)
    assert all(found.root.child(entry.alignment).exists() for entry in found.entries)


def test_sa_sentences_and_copies_are_left_out(corpus):
    before = scan(corpus)
    wav = min((corpus / "TRAIN").rglob("*.WAV"))
    for extension in (".WAV", ".TXT", ".PHN"):
        shutil.copy(wav.with_suffix(extension), wav.with_name(f"SA1{extension}"))
    shutil.copy(wav, wav.with_name(f"{wav.name}.wav"))
    assert scan(corpus) == before


def test_damaged_files_each_have_their_reason(corpus):
    wavs = [min(speaker.glob("*.WAV")) for speaker in sorted((corpus / "TRAIN").glob("*/*"))]
    expected = {}

    def damage(reason):
        wav = wavs[len(expected)]
        expected[f"{wav.parent.name}_{wav.stem}"] = reason
        return wav

    damage("missing_audio").unlink()
    damage("missing_transcript").with_suffix(".TXT").unlink()
    damage("empty_transcript").with_suffix(".TXT").write_text("0 1234\n")
    damage("malformed_transcript").with_suffix(".TXT").write_text("no numbers here\n")
    damage("malformed_transcript").with_suffix(".TXT").write_bytes(b"0 10 \xff\xfe\n")
    damage("empty_transcript").with_suffix(".TXT").write_text("0 1234 ...\n")
    twin = wavs[-1].with_name(wavs[-1].name.lower())
    shutil.copy(wavs[-1], twin)
    stranger = wavs[-2].parent.rename(wavs[-2].parent.with_name("NOBODY"))
    unaligned = wavs[-3].with_suffix(".PHN")
    unaligned.unlink()

    listing = scan(corpus, "train")
    found = {reject.utterance_id: reject.reason for reject in listing.rejects}
    for wav in stranger.glob("*.WAV"):
        expected[f"NOBODY_{wav.stem}"] = "unknown_speaker"
    expected[f"{twin.parent.name}_{wavs[-1].stem}"] = "duplicate_utterance"
    assert found == expected
    without = [entry.audio for entry in listing.entries if entry.alignment is None]
    assert without == [str(wavs[-3].relative_to(corpus))]


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (
            "She had your dark suit in greasy wash water all year.",
            "SHE HAD YOUR DARK SUIT IN GREASY WASH WATER ALL YEAR",
        ),
        ('"Don\'t ask me," he said -- twice-told; why?', "DON'T ASK ME HE SAID TWICE TOLD WHY"),
        ("Caf\u00e9 (open)!", "CAF\u00c9 OPEN"),
    ],
)
def test_prompts_take_librispeechs_form(prompt, text):
    assert normalise_text(prompt) == text


@pytest.mark.parametrize(
    ("root", "subset", "message"),
    [
        ("none", "train", "not a folder"),
        (".", "train", "no TRAIN or TEST folder.*it holds: corpus"),
        ("corpus", "train-clean-100", "no subset 'train-clean-100'.*dev, test, test-complete"),
    ],
)
def test_a_wrong_root_or_subset_says_what_is_there(corpus, tmp_path, root, subset, message):
    with pytest.raises(PipelineError, match=message):
        scan(tmp_path / root, subset)


def test_a_missing_folder_says_what_is_there(corpus):
    shutil.rmtree(corpus / "TEST")
    assert scan(corpus, "train").entries
    with pytest.raises(PipelineError, match=r"no TEST folder; it has: TRAIN"):
        scan(corpus, "dev")


def test_files_of_no_use_are_counted(corpus, caplog):
    wav = min((corpus / "TRAIN").rglob("*.WAV"))
    scan(corpus)
    assert "passed over" not in caplog.text
    shutil.copy(wav, wav.with_name(wav.name + ".wav"))
    wav.with_name("NOTES.DOC").write_text("x")
    scan(corpus)
    assert "2 files are neither audio, transcript nor alignment" in caplog.text
