"""The LibriSpeech reader: whole, damaged, on S3, and on real speech."""

import io
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from featurize.audio import read_audio
from featurize.corpora.librispeech import AUDIO_EXTENSIONS, read_speakers
from featurize.corpora.scan import scan_corpus
from featurize.phones import read_alignment
from featurize.reject_reasons import RejectedUtterance
from featurize.stage import Location, PipelineError

SUBSETS = ("train-synthetic", "dev-synthetic", "test-synthetic")


@pytest.fixture
def corpus(synthetic_corpus, tmp_path) -> Path:
    """A copy to damage."""
    target = tmp_path / "corpus"
    shutil.copytree(synthetic_corpus / "librispeech", target)
    return target


def scan(root, subsets=SUBSETS):
    return scan_corpus("librispeech", Location.of(root), subsets)


def chapter_of(flac: Path) -> Path:
    return flac.parent / f"{flac.parent.parent.name}-{flac.parent.name}.trans.txt"


def rewrite(flac: Path, change) -> None:
    """Pass the transcript line of an utterance through a function of bytes."""
    path = chapter_of(flac)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(
        b"".join(change(line) if line.startswith(flac.stem.encode()) else line for line in lines)
    )


def verdicts(listing):
    """Reasons by utterance: the scan's rejects, and those found on reading every entry."""
    found = {reject.utterance_id: reject.reason for reject in listing.rejects}
    notes = {}
    for entry in listing.entries:
        try:
            audio = read_audio(listing.root.child(entry.audio), 16_000, 30.0)
            read_alignment(listing.root.child(entry.alignment))
        except RejectedUtterance as verdict:
            found[entry.utterance_id] = verdict.reason
        else:
            notes[entry.utterance_id] = audio.was_resampled
    return found, notes


def test_a_whole_corpus(synthetic_corpus):
    listing = scan(synthetic_corpus / "librispeech")
    assert listing.rejects == ()
    assert list(listing.entries) == sorted(
        listing.entries, key=lambda entry: (entry.subset, entry.utterance_id)
    )
    first = listing.entries[0]
    assert first.utterance_id.split("-")[:2] == [first.speaker_id, first.chapter_id]
    line = f"{first.utterance_id} {first.text}"
    flac = listing.root.child(first.audio)
    assert line in chapter_of(Path(flac.path)).read_text().splitlines()
    assert first.alignment == first.audio.replace(".flac", ".PHN")


def test_damaged_files_of_many_kinds_each_have_their_reason(corpus):
    speakers = sorted((corpus / "train-synthetic").iterdir())
    flacs = [min(speaker.rglob("*.flac")) for speaker in speakers]
    expected = {}

    def damage(reason):
        flac = flacs[len(expected)]
        expected[flac.stem] = reason
        return flac

    damage("missing_audio").unlink()
    rewrite(damage("missing_transcript"), lambda line: b"")
    rewrite(damage("malformed_transcript"), lambda line: line.replace(b" ", b"\t"))
    rewrite(damage("empty_transcript"), lambda line: line.split()[0] + b" \n")
    flac = damage("truncated_audio")
    flac.write_bytes(flac.read_bytes()[: flac.stat().st_size // 2])
    damage("unreadable_audio").write_bytes(os.urandom(5_000))
    damage("zero_length_audio").write_bytes(b"")
    damage("bad_alignment").with_suffix(".PHN").write_text("0 100 h#\n50 200 aa\n")
    flac = damage("unknown_speaker")
    table = corpus / "SPEAKERS.TXT"
    speaker = flac.stem.split("-")[0]
    kept = [line for line in table.read_text().splitlines(True) if not line.startswith(speaker)]
    table.write_text("".join(kept))
    flac = damage("too_long")
    soundfile.write(flac, np.zeros(31 * 16_000, np.int16), 16_000)
    flac = damage("non_finite_audio")
    soundfile.write(flac, np.full(16_000, np.nan), 16_000, subtype="FLOAT", format="WAV")
    rewrite(damage("malformed_transcript"), lambda line: line.replace(b" ", b" \xff\xfe", 1))

    found, notes = verdicts(scan(corpus))
    # Every other utterance of the unknown speaker is rejected with it.
    same_speaker = {path.stem for path in corpus.rglob(f"{speaker}-*.flac")} - expected.keys()
    for utterance in same_speaker:
        assert found.pop(utterance) == "unknown_speaker"
    assert found == expected
    assert len(set(expected.values())) == 11
    assert len(notes) + len(found) + len(same_speaker) == len(list(corpus.rglob("*.PHN")))


def test_duplicates_keep_the_first(corpus):
    flac = min((corpus / "dev-synthetic").rglob("*.flac"))
    rewrite(flac, lambda line: line + flac.stem.encode() + b" ANOTHER TEXT\n")
    copied = corpus / "test-synthetic" / flac.relative_to(corpus / "dev-synthetic").parent
    shutil.copytree(flac.parent, copied)
    listing = scan(corpus, ("dev-synthetic", "test-synthetic"))
    assert Counter(reject.reason for reject in listing.rejects) == {
        "duplicate_utterance": 1 + len(list(copied.glob("*.flac"))) + 1
    }
    kept = [entry for entry in listing.entries if entry.utterance_id == flac.stem]
    assert [(entry.subset, entry.text == "ANOTHER TEXT") for entry in kept] == [
        ("dev-synthetic", False)
    ]


def test_other_rates_and_stereo_are_used_and_noted(corpus):
    first, second, third = sorted((corpus / "dev-synthetic").rglob("*.flac"))[:3]
    samples, _ = soundfile.read(first, dtype="int16")
    soundfile.write(first, samples, 8_000)
    samples, _ = soundfile.read(second, dtype="int16")
    soundfile.write(second, np.stack([samples, samples], axis=1), 16_000)
    found, notes = verdicts(scan(corpus, ("dev-synthetic",)))
    assert found == {}
    assert notes[first.stem]
    assert not notes[second.stem]
    assert not notes[third.stem]


def test_audio_of_another_format_is_read_as_well(corpus):
    flac = min((corpus / "dev-synthetic").rglob("*.flac"))
    samples, rate = soundfile.read(flac)
    opus = flac.with_suffix(".opus")
    soundfile.write(opus, samples, rate, format="OGG", subtype="OPUS")
    flac.unlink()
    found, _ = verdicts(scan(corpus, ("dev-synthetic",)))
    assert found == {}
    # the same utterance twice, in two formats, is one too many
    soundfile.write(flac, samples, rate)
    twice = scan(corpus, ("dev-synthetic",))
    assert [(r.utterance_id, r.reason) for r in twice.rejects] == [
        (flac.stem, "duplicate_utterance")
    ]


def test_a_missing_chapter_transcript_rejects_its_audio(corpus):
    flac = min((corpus / "dev-synthetic").rglob("*.flac"))
    chapter_of(flac).unlink()
    listing = scan(corpus, ("dev-synthetic",))
    assert {reject.utterance_id for reject in listing.rejects} == {
        path.stem for path in flac.parent.glob("*.flac")
    }
    assert {reject.reason for reject in listing.rejects} == {"missing_transcript"}


def test_the_digest_follows_the_content(corpus):
    before = scan(corpus).digest
    assert scan(corpus).digest == before
    flac = min((corpus / "dev-synthetic").rglob("*.flac"))
    os.utime(flac, (1, 1))
    touched = scan(corpus).digest
    rewrite(flac, lambda line: line.replace(b" ", b" ALSO ", 1))
    reworded = scan(corpus).digest
    flac.with_suffix(".PHN").unlink()
    assert len({before, touched, reworded, scan(corpus).digest}) == 4


def test_the_root_may_be_the_folder_above(corpus, tmp_path):
    plain = scan(corpus)
    (tmp_path / "above").mkdir()
    corpus.rename(tmp_path / "above" / "LibriSpeech")
    listing = scan(tmp_path / "above")
    assert listing.digest == plain.digest
    assert listing.root.name == "LibriSpeech"


def test_brackets_in_the_path_are_no_pattern(corpus, tmp_path):
    plain = scan(corpus)
    corpus.rename(tmp_path / "[speech]*")
    assert scan(tmp_path / "[speech]*").digest == plain.digest


@pytest.mark.parametrize(
    ("root", "subsets", "message"),
    [
        ("none", SUBSETS, "not a folder"),
        (".", SUBSETS, "no SPEAKERS.TXT.*it holds: corpus"),
        ("corpus", ["train-clean-100"], "no subset 'train-clean-100'.*dev-synthetic, test-syn"),
        ("corpus", ["../corpus"], "name of a folder"),
        ("corpus", [], "no subsets"),
    ],
)
def test_a_wrong_root_or_subset_says_what_is_there(corpus, tmp_path, root, subsets, message):
    with pytest.raises(PipelineError, match=message):
        scan(tmp_path / root, subsets)


def test_the_speaker_table(tmp_path):
    table = tmp_path / "SPEAKERS.TXT"
    table.write_bytes(
        b"; comment | with | bars | here\n\n14   | F | train-clean-360  | 25.03 | Kristin\n"
        b"60   | M | train-clean-100  | 20.18 | A | name | with bars \xe9\n"
    )
    assert read_speakers(Location.of(table)) == {"14", "60"}
    table.write_text("14 F train 25\n")
    with pytest.raises(PipelineError, match=r"line 1: expected 'ID \| SEX"):
        read_speakers(Location.of(table))


@pytest.mark.integration
def test_a_corpus_on_s3_is_the_same_corpus(synthetic_corpus, s3_server):
    source = synthetic_corpus / "librispeech"
    shutil.copytree(source, s3_server.folder / "corpora" / "LibriSpeech")
    root = s3_server.folder / "corpora" / "LibriSpeech"
    empty = min((root / "dev-synthetic").rglob("*.flac"))
    empty.write_bytes(b"")
    missing = min((root / "test-synthetic").rglob("*.flac"))
    missing.unlink()
    local, remote = scan(source), scan(f"{s3_server.uri}/corpora")
    assert [reject.reason for reject in remote.rejects] == ["missing_audio"]
    assert remote.entries == tuple(e for e in local.entries if e.utterance_id != missing.stem)
    for entry in remote.entries[:4]:
        if entry.utterance_id == empty.stem:
            continue
        here = read_audio(local.root.child(entry.audio), 16_000, 30.0)
        there = read_audio(remote.root.child(entry.audio), 16_000, 30.0)
        np.testing.assert_array_equal(here.samples, there.samples)
        alignment = read_alignment(remote.root.child(entry.alignment))
        assert alignment == read_alignment(local.root.child(entry.alignment))
    with pytest.raises(RejectedUtterance) as caught:
        read_audio(
            Location.of(f"s3://bucket/corpora/LibriSpeech/{empty.relative_to(root)}"), 16_000, 30
        )
    assert caught.value.reason == "zero_length_audio"
    with pytest.raises(RejectedUtterance) as caught:
        read_audio(Location.of("s3://bucket/corpora/none.flac"), 16_000, 30)
    assert caught.value.reason == "missing_audio"
    assert scan(f"{s3_server.uri}/corpora").digest == remote.digest
    with pytest.raises(PipelineError, match="no subset 'other'"):
        scan(f"{s3_server.uri}/corpora", ["other"])
    with pytest.raises(PipelineError, match="not a folder"):
        scan(f"{s3_server.uri}/nothing")


def test_a_folder_that_cannot_be_entered_is_named(corpus, monkeypatch):
    """Rights do not stop root, as which tests may run: the system's answer is made up."""
    closed = min((corpus / "dev-synthetic").iterdir())
    real = os.scandir

    def scandir(path):
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PipelineError, match=f"{closed} cannot be entered .Permission denied."):
        scan(corpus, ("dev-synthetic",))


def test_links_within_the_corpus_are_followed_and_loops_are_named(corpus):
    speaker = min((corpus / "dev-synthetic").iterdir())
    plain = scan(corpus, ("dev-synthetic",))
    (corpus / "elsewhere").mkdir()
    speaker.rename(corpus / "elsewhere" / speaker.name)
    speaker.symlink_to(corpus / "elsewhere" / speaker.name)
    assert scan(corpus, ("dev-synthetic",)).entries == plain.entries
    (corpus / "elsewhere" / speaker.name / "loop").symlink_to(speaker)
    with pytest.raises(PipelineError, match="a link to a folder above, perhaps"):
        scan(corpus, ("dev-synthetic",))


def test_a_link_to_nothing_is_missing_audio(corpus):
    flac = min((corpus / "dev-synthetic").rglob("*.flac"))
    flac.unlink()
    flac.symlink_to(corpus / "gone.flac")
    found, _ = verdicts(scan(corpus, ("dev-synthetic",)))
    assert found == {flac.stem: "missing_audio"}


def test_files_that_lie_too_deep_are_named(corpus):
    deep = corpus / "dev-synthetic" / "1/2/3/4/5/6/7"
    deep.mkdir(parents=True)
    with pytest.raises(PipelineError, match="lies 6 folders below"):
        scan(corpus, ("dev-synthetic",))


def test_files_of_no_use_are_counted(corpus, caplog):
    chapter = min((corpus / "dev-synthetic").rglob("*.flac")).parent
    for name in ("a.wma", "trans.txt.bak", "cover.jpg", "notes"):
        (chapter / name).write_text("x")
    before = scan(corpus, ("test-synthetic",))
    assert "passed over" not in caplog.text
    scan(corpus, ("dev-synthetic",))
    assert "4 files are neither audio, transcript nor alignment" in caplog.text
    assert "a.wma, cover.jpg, notes and 1 more" in caplog.text
    assert before.rejects == ()


def test_real_speech(librispeech_root):
    subsets = sorted(path.name for path in librispeech_root.iterdir() if path.is_dir())
    listing = scan(librispeech_root, subsets)
    assert listing.rejects == ()
    audio = [p for p in librispeech_root.rglob("*") if p.suffix in AUDIO_EXTENSIONS]
    assert len(listing.entries) == len(audio)
    alphabet = set("ABCDEFGHIJKLMNOPQRSTUVWXYZ' ")
    assert all(set(entry.text) <= alphabet for entry in listing.entries)
    entry = listing.entries[0]
    found = read_audio(listing.root.child(entry.audio), 16_000, 40.0)
    expected, _ = soundfile.read(
        io.BytesIO(listing.root.child(entry.audio).read_bytes()), dtype="float32"
    )
    np.testing.assert_array_equal(found.samples, expected)


def test_companions_of_macos_are_passed_over(corpus, caplog):
    before = scan(corpus)
    for path in [*corpus.rglob("*.flac"), *corpus.rglob("*.trans.txt"), *corpus.rglob("*.PHN")]:
        path.with_name(f"._{path.name}").write_bytes(bytes.fromhex("0005160700020000"))
    (corpus / SUBSETS[0] / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    after = scan(corpus)
    assert after.entries == before.entries
    assert after.rejects == ()
    assert "companion files of macOS" in caplog.text


def test_a_name_of_another_encoding_is_one_reject(corpus):
    flac = next(corpus.rglob("*.flac"))
    odd = os.path.join(os.fsencode(flac.parent), b"caf\xe9.flac")
    shutil.copyfile(os.fsencode(flac), odd)
    listing = scan(corpus)
    assert [(r.reason, Path(r.path).name) for r in listing.rejects] == [
        ("missing_transcript", r"caf\xe9.flac")
    ]


def test_a_byte_order_mark_changes_nothing(corpus):
    before = scan(corpus)
    for path in [corpus / "SPEAKERS.TXT", *corpus.rglob("*.trans.txt"), *corpus.rglob("*.PHN")]:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    after = scan(corpus)
    assert [entry.text for entry in after.entries] == [entry.text for entry in before.entries]
    assert after.rejects == ()
    found, _ = verdicts(after)
    assert found == {}
