"""Corpora stated in tables: the same speech gives the same shards; hostile tables do no harm."""

import codecs
import gzip
import json
import os

import numpy as np
import pytest
import soundfile

from featurize.audio import read_audio
from featurize.corpora.registry import READERS, recognised
from featurize.corpora.scan import scan_corpus, subsets_at
from featurize.corpora.split import SplitShares, split_table
from featurize.featurize import featurize, plan_featurize
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.schema import FeaturizeManifest
from featurize.shards import iter_rows
from featurize.stage import Location, PipelineError, read_manifest
from tests.harness import layouts

LAYOUTS = {
    "json lines": ("manifest", layouts.write_json_lines),
    "csv": ("manifest", layouts.write_csv),
    "kaldi": ("kaldi", layouts.write_kaldi),
    "lhotse cuts": ("lhotse", lambda at, to: layouts.write_lhotse(at, to, as_cuts=True)),
    "lhotse supervisions": ("lhotse", lambda at, to: layouts.write_lhotse(at, to, as_cuts=False)),
}
RATE = 16_000


def shard_digests(reader, root, splits, runs):
    config = FeaturizeConfig(corpus=reader, splits=splits, cmvn="speaker")
    result = featurize(config, root, runs)
    manifest = read_manifest(result.location, FeaturizeManifest)
    assert not manifest.reject_counts
    return [(shard.file, shard.sha256) for shard in manifest.shards], manifest.cmvn


def assert_every_layout_gives_the_same(root, splits, tmp_path):
    listing = scan_corpus("librispeech", root, splits.subsets)
    expected = shard_digests("librispeech", root, splits, Location.of(tmp_path / "runs"))
    for number, (name, (reader, write)) in enumerate(LAYOUTS.items()):
        if reader == "lhotse":
            pytest.importorskip("lhotse")
        folder = tmp_path / f"layout{number}"
        write(listing, folder)
        there = Location.of(folder)
        assert recognised(there) == reader, name
        assert set(subsets_at(reader, there)) == set(splits.subsets), name
        assert shard_digests(reader, there, splits, Location.of(tmp_path / "runs")) == expected, (
            name
        )
    return listing


def test_one_corpus_in_five_layouts_gives_identical_shards(synthetic_corpus, tmp_path):
    splits = SplitsConfig(train=("train-synthetic",), dev=("dev-synthetic",))
    root = Location.of(synthetic_corpus / "librispeech")
    assert_every_layout_gives_the_same(root, splits, tmp_path)


def test_real_speech_in_five_layouts_gives_identical_shards(librispeech_root, tmp_path):
    root = Location.of(librispeech_root)
    names = [name for name in subsets_at("librispeech", root) if name.startswith("dev")]
    assert_every_layout_gives_the_same(root, SplitsConfig(dev=tuple(names[:1])), tmp_path)


@pytest.mark.parametrize("name", ["json lines", "csv", "kaldi"])
def test_a_mark_and_line_ends_of_another_system_change_no_utterance(
    synthetic_corpus, tmp_path, name
):
    subset = "dev-synthetic"
    listing = scan_corpus("librispeech", Location.of(synthetic_corpus / "librispeech"), [subset])
    reader, write = LAYOUTS[name]
    write(listing, tmp_path)
    there = Location.of(tmp_path)
    plain = scan_corpus(reader, there, [subset])
    for table in tmp_path.rglob("*"):
        if table.is_file():
            content = table.read_bytes().removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")
            table.write_bytes(codecs.BOM_UTF8 + content.replace(b"\n", b"\r\n"))
    marked = scan_corpus(reader, there, [subset])
    assert not marked.rejects
    assert marked.entries == plain.entries
    assert len(marked.entries) == len(listing.entries)


def write_audio(path, seconds=1.0, rate=RATE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(map(ord, path.name))
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate))
    soundfile.write(path, samples, rate, **options)
    return path


def scan_lines(tmp_path, *records, name="train"):
    lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
    (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return scan_corpus("manifest", Location.of(tmp_path), [name])


def reasons(listing):
    return {reject.utterance_id: reject.reason for reject in listing.rejects}


def rows(reader, root, runs, subset="train"):
    config = FeaturizeConfig(corpus=reader, splits=SplitsConfig(test=(subset,)))
    location = featurize(config, root, Location.of(runs)).location
    manifest = read_manifest(location, FeaturizeManifest)
    return {row.utterance_id: row for row in iter_rows(location, manifest, [subset])}


@pytest.mark.parametrize("ending", ["flac", "wav", "ogg", "opus", "mp3"])
def test_segments_of_a_recording_are_what_cutting_it_gives(tmp_path, ending):
    options = {"opus": {"format": "OGG", "subtype": "OPUS"}}.get(ending, {})
    whole = write_audio(tmp_path / f"call.{ending}", 3.0, **options)
    samples, _ = soundfile.read(whole, dtype="int16")
    soundfile.write(tmp_path / "cut.flac", samples[12_000:28_000], RATE)
    scan_lines(
        tmp_path,
        {"audio": whole.name, "text": "one", "start": 0.75, "duration": 1.0, "id": "a"},
        {"audio": "cut.flac", "text": "one", "id": "b"},
        {"audio": str(whole), "text": "to the end", "start": 2.5},
        {"audio": whole.name, "text": "all", "duration": 2.99},
    )
    found = rows("manifest", Location.of(tmp_path), tmp_path / "runs")
    assert np.abs(found["a"].features.astype(float) - found["b"].features).max() < 0.05
    assert {name: row.num_samples for name, row in found.items()} == {
        "a": 16_000,
        "b": 16_000,
        "call-00002500": 8_000,
        "call": 48_000,
    }


def test_kaldi_segments_are_those_of_json_lines(tmp_path):
    data = tmp_path / "data" / "train"
    audio = write_audio(data / "rec.wav", 5.0)
    (data / "wav.scp").write_text(f"rec {audio}\n")
    (data / "segments").write_text("ann-1 rec 1.1 2.3\nann-2 rec 2.3 5.01\n")
    (data / "text").write_text("ann-1 HELLO\nann-2 WORLD AGAIN\n")
    (data / "utt2spk").write_text("ann-1 ann\nann-2 ann\n")
    found = rows("kaldi", Location.of(tmp_path / "data"), tmp_path / "runs")
    assert [row.num_samples for row in found.values()] == [19_200, 43_200]
    scan_lines(tmp_path, {"audio": str(audio), "text": "x", "start": 1.1, "duration": 1.2})
    (other,) = rows("manifest", Location.of(tmp_path), tmp_path / "runs").values()
    assert np.array_equal(other.features, found["ann-1"].features)


def test_a_recording_on_s3_is_cut_as_here(tmp_path, s3_server):
    write_audio(tmp_path / "call.flac", 3.0)
    record = {"audio": "call.flac", "text": "one", "start": 0.75, "duration": 1.0}
    scan_lines(tmp_path, record)
    there = Location.of(s3_server.uri).child("spoken")
    for name in ("call.flac", "train.jsonl"):
        there.child(name).write_bytes((tmp_path / name).read_bytes())
    (here,) = rows("manifest", Location.of(tmp_path), tmp_path / "runs").values()
    (remote,) = rows("manifest", there, tmp_path / "runs").values()
    assert np.array_equal(here.features, remote.features)


def test_what_is_wrong_with_each_line_is_said(tmp_path):
    write_audio(tmp_path / "a.wav")
    (tmp_path / "secret.PHN").write_text("0 16000 h#\n")
    (tmp_path / "folder.wav").mkdir()
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path.parent / "outside.wav").write_bytes((tmp_path / "a.wav").read_bytes())
    good = {"audio": "a.wav", "text": "Hello, world!"}
    listing = scan_lines(
        tmp_path,
        good | {"id": "good", "speaker": 7},
        good | {"id": "good"},
        good | {"id": "climbs", "audio": "../outside.wav"},
        good | {"id": "pipe", "audio": "pipe.wav"},
        good | {"id": "folder", "audio": "folder.wav"},
        good | {"id": "silent", "text": " ?! "},
        good | {"id": "early", "start": -1},
        good | {"id": "endless", "duration": float("inf")},
        good | {"id": "outer", "alignment": str(tmp_path / "secret.PHN")},
        good | {"id": "new\nline"},
        "{",
        "[" * 100_000,
        '{"audio": "\\ud800.wav", "text": "x"}',
        '{"text": "no audio"}',
    )
    assert [(e.utterance_id, e.speaker_id, e.text) for e in listing.entries] == [
        ("good", "7", "HELLO WORLD")
    ]
    found = [(reject.utterance_id, reject.reason) for reject in listing.rejects]
    assert sorted(found) == sorted(
        [
            ("good", "duplicate_utterance"),
            ("climbs", "missing_audio"),
            ("pipe", "missing_audio"),
            ("folder", "missing_audio"),
            ("silent", "empty_transcript"),
            ("outer", "missing_alignment"),
            ("new?line", "malformed_entry"),
            *((f"line {n} of train.jsonl", "malformed_entry") for n in (7, 8, 11, 12, 13, 14)),
        ]
    )


def test_of_a_file_that_is_no_audio_nothing_is_told(tmp_path):
    (tmp_path / "passwords").write_text("root:hunter2")
    (tmp_path / "link.wav").symlink_to(tmp_path / "passwords")
    write_audio(tmp_path / "a.wav")
    scan_lines(
        tmp_path,
        {"audio": str(tmp_path / "passwords"), "text": "x"},
        {"audio": "link.wav", "text": "x"},
        {"audio": "a.wav", "text": "x"},
    )
    config = FeaturizeConfig(
        corpus="manifest", splits=SplitsConfig(test=("train",)), max_reject_share=1.0
    )
    result = featurize(config, Location.of(tmp_path), Location.of(tmp_path / "runs"))
    content = result.location.child("rejects.parquet").read_bytes()
    assert b"hunter2" not in content
    assert read_manifest(result.location, FeaturizeManifest).reject_counts == {
        "unreadable_audio": 2
    }


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"train.csv": b"wav,words\na.wav,hello\n"}, "has to name the columns"),
        ({"train.csv": b"audio,text\na.wav,caf\xe9\n"}, "line 2 is not UTF-8"),
        ({"train.csv": b"audio,te\rxt\n"}, "line 1"),
        ({"train.jsonl": b"x" * (2**20 + 5)}, "too long"),
        ({"train.jsonl.gz": b"not packed"}, "cannot read"),
        ({"train.jsonl.gz": gzip.compress(b"{}\n" * 999)[:30]}, "cannot read"),
        ({"train.jsonl": b"", "train.csv": b""}, "keep one"),
        ({"dev.jsonl": b'{"audio": "a.wav", "text": "x"}\n'}, "no subset 'train'"),
        ({"notes.txt": b""}, "no table"),
    ],
)
def test_tables_that_cannot_be_used_are_refused_in_one_line(tmp_path, tables, said):
    for name, content in tables.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PipelineError, match=said):
        scan_corpus("manifest", Location.of(tmp_path), ["train"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"wav.scp": "a sox x.wav -t wav - |\n"}, "commands are not run"),
        ({"wav.scp": "a flac -cds 'x |\n"}, "commands are not run"),
        ({"wav.scp": "a a.wav\na a.wav\n"}, "a second time"),
        ({"utt2spk": "a\n"}, "line 1: nothing follows"),
    ],
)
def test_kaldi_tables_that_cannot_be_used(tmp_path, change, said):
    write_audio(tmp_path / "a.wav")
    tables = {"wav.scp": "a a.wav\n", "text": "a HELLO\n"} | change
    for name, content in tables.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(PipelineError, match=said):
        scan_corpus("kaldi", Location.of(tmp_path), [tmp_path.name])


def test_kaldi_utterances_that_do_not_fit_together_are_rejected(tmp_path):
    write_audio(tmp_path / "a.wav")
    (tmp_path / "wav.scp").write_text("rec a.wav\n")
    (tmp_path / "segments").write_text("a rec 0 0.5\nb rec x 1\nc gone 0 1\nd rec 0.5 0.5\n")
    (tmp_path / "text").write_text("a HI\nb HI\nc HI\nd HI\ne HI\nf\n")
    listing = scan_corpus("kaldi", Location.of(tmp_path), [tmp_path.name])
    assert [entry.utterance_id for entry in listing.entries] == ["a"]
    assert reasons(listing) == {
        "b": "malformed_entry",
        "c": "missing_audio",
        "d": "malformed_entry",
        "e": "missing_audio",
        "f": "missing_audio",
    }


def test_what_lhotse_would_compute_is_rejected(tmp_path):
    lhotse = pytest.importorskip("lhotse")
    audio = str(write_audio(tmp_path / "a.wav", 4.0))
    recording = lhotse.Recording.from_file(audio, recording_id="rec")

    def cut(name, recording, start=0.0):
        said = lhotse.SupervisionSegment(name, recording.id, 0.5, 1.0, text="hi", speaker="ann")
        return lhotse.MonoCut(name, start, 2.0, 0, supervisions=[said], recording=recording)

    cuts = [
        cut("plain", recording, 1.0),
        cut("faster", recording.perturb_speed(1.1)),
        cut("mixed", recording).mix(cut("other", recording), snr=10),
        cut("piped", recording.with_path_prefix("x")),
    ]
    cuts[3].recording.sources[0].type = "command"
    lhotse.CutSet.from_cuts(cuts).to_file(tmp_path / "cuts_train.jsonl.gz")
    root = Location.of(tmp_path)
    listing = scan_corpus("lhotse", root, ["train"])
    (entry,) = listing.entries
    assert (entry.utterance_id, entry.segment.start_s, entry.segment.duration_s) == (
        "plain",
        1.5,
        1.0,
    )
    assert set(reasons(listing).values()) == {"malformed_entry"}
    assert len(listing.rejects) == 3
    ours = read_audio(Location.of(audio), RATE, 10.0, entry.segment).samples
    assert np.array_equal(ours, cuts[0].trim_to_supervisions()[0].load_audio()[0])


def test_mls_is_read_as_it_is(tmp_path):
    for number in range(3):
        path = tmp_path / "dev" / "audio" / "12" / "34" / f"12_34_00000{number}.opus"
        write_audio(path, format="OGG", subtype="OPUS")
    lines = [f"12_34_00000{number}\tthe words\n" for number in range(4)] + ["garbage\n"]
    (tmp_path / "dev" / "transcripts.txt").write_text("".join(lines))
    root = Location.of(tmp_path)
    assert recognised(root) == "mls"
    listing = scan_corpus("mls", root, subsets_at("mls", root))
    assert [(e.speaker_id, e.chapter_id) for e in listing.entries] == [("12", "34")] * 3
    assert sorted(reasons(listing).values()) == ["malformed_transcript", "missing_audio"]


def test_several_corpora_make_one_feature_set(tmp_path):
    for name in ("read", "own"):
        write_audio(tmp_path / name / f"{name}.wav")
        (tmp_path / name / "train.csv").write_text(f"audio,text,id\n{name}.wav,Hello,u1\n")
    file = tmp_path / "corpora.yaml"
    file.write_text(
        "corpora:\n  read: {reader: manifest, root: read}\n"
        f"  own: {{reader: manifest, root: {tmp_path / 'own'}}}\n"
    )
    root = Location.of(file)
    assert recognised(root) == "several"
    assert subsets_at("several", root) == ("read:train", "own:train")
    splits = SplitsConfig(train=("read:train",), test=("own:train",))
    result = featurize(
        FeaturizeConfig(corpus="several", splits=splits), root, Location.of(tmp_path / "runs")
    )
    manifest = read_manifest(result.location, FeaturizeManifest)
    assert {name: info.num_utterances for name, info in manifest.subsets.items()} == {
        "read:train": 1,
        "own:train": 1,
    }
    assert [e.speaker_id for e in scan_corpus("several", root, splits.subsets).entries] == [
        "own:unknown",
        "read:unknown",
    ]
    before = plan_featurize(manifest_config(splits), root, Location.of(tmp_path)).fingerprint
    (tmp_path / "own" / "train.csv").write_text("audio,text,id\nown.wav,Hello,u2\n")
    after = plan_featurize(manifest_config(splits), root, Location.of(tmp_path)).fingerprint
    assert before != after


def manifest_config(splits):
    return FeaturizeConfig(corpus="several", splits=splits)


@pytest.mark.parametrize(
    "text",
    [
        "corpora: {}",
        "corpora: {x: {reader: several, root: a}}",
        "corpora: {x: {reader: manifest, roof: a}}",
        "corpora: {'../x': {reader: manifest, root: a}}",
        "a: !!python/object/apply:os.system [true]",
        "[" * 2000,
    ],
)
def test_files_that_name_no_corpora_are_refused(tmp_path, text):
    (tmp_path / "corpora.yaml").write_text(text)
    with pytest.raises(PipelineError, match="several"):
        subsets_at("several", Location.of(tmp_path / "corpora.yaml"))


def test_every_byte_of_a_table_and_every_audio_file_names_the_features(tmp_path):
    audio = write_audio(tmp_path / "a.wav")
    record = {"audio": "a.wav", "text": "hello", "id": "u"}
    digests = [scan_lines(tmp_path, record).digest]
    for change in (
        {"text": "hallo"},
        {"speaker": "ann"},
        {"chapter": "c"},
        {"start": 0.1},
        {"duration": 0.5},
    ):
        digests.append(scan_lines(tmp_path, record | change).digest)
    os.utime(audio, (1e9, 1e9))
    digests.append(scan_lines(tmp_path, record).digest)
    assert len(set(digests)) == len(digests)


def test_a_stated_length_of_an_mp3_is_held_against_its_size(tmp_path):
    whole = write_audio(tmp_path / "a.mp3", 3.0)
    cut = tmp_path / "cut.mp3"
    cut.write_bytes(whole.read_bytes()[:-2000])
    tagged = tmp_path / "tagged.mp3"
    tagged.write_bytes(b"ID3\x04\x00\x00\x00\x00\x01\x00" + b"\0" * 128 + whole.read_bytes())
    scan_lines(tmp_path, *({"audio": p.name, "text": "x"} for p in (whole, cut, tagged)))
    config = FeaturizeConfig(
        corpus="manifest", splits=SplitsConfig(test=("train",)), max_reject_share=1.0
    )
    result = featurize(config, Location.of(tmp_path), Location.of(tmp_path / "runs"))
    manifest = read_manifest(result.location, FeaturizeManifest)
    assert manifest.reject_counts == {"truncated_audio": 1}
    assert manifest.subsets["train"].num_utterances == 2


def test_every_built_in_reader_refuses_a_folder_of_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(PipelineError, match="laid out as none of"):
        recognised(Location.of(tmp_path))
    for name in set(READERS.built_in) - {"timit", "several"}:
        with pytest.raises(PipelineError):
            subsets_at(name, Location.of(tmp_path))


def test_a_text_that_a_comma_cuts_is_rejected(tmp_path):
    write_audio(tmp_path / "a.wav")
    for header, row in (
        ("audio,text", "a.wav,Hello, world"),
        ("audio,text,speaker", "a.wav,Hello, world,ann"),
    ):
        (tmp_path / "train.csv").write_text(f"{header}\n{row}\na.wav,Hello\n")
        listing = scan_corpus("manifest", Location.of(tmp_path), ["train"])
        assert len(listing.entries) == 1
        (reject,) = listing.rejects
        assert "belongs to no column" in reject.detail
        assert "line 2" in reject.detail


def test_columns_without_a_name_are_passed_over(tmp_path):
    """As pandas writes the numbers of rows."""
    write_audio(tmp_path / "a.wav")
    (tmp_path / "train.csv").write_text(",audio,text,\n0,a.wav,Hello,x\n")
    listing = scan_corpus("manifest", Location.of(tmp_path), ["train"])
    assert [entry.text for entry in listing.entries] == ["HELLO"]
    assert not listing.rejects


def test_two_manifests_of_one_lhotse_subset_are_refused(tmp_path):
    for name in ("libri", "ted"):
        (tmp_path / f"{name}_cuts_dev.jsonl").write_text("")
    (tmp_path / "._cuts_test.jsonl").write_text("")
    (tmp_path / "cuts_test.jsonl").write_text("")
    with pytest.raises(PipelineError, match="are both the cuts of subset 'dev'"):
        scan_corpus("lhotse", Location.of(tmp_path), ["dev"])


def test_one_channel_of_several_is_rejected(tmp_path):
    write_audio(tmp_path / "call.wav")
    source = {"type": "file", "channels": [0, 1], "source": "call.wav"}
    recording = {"id": "call", "sources": [source], "duration": 1.0}
    spoken = {"recording_id": "call", "start": 0.0, "duration": 1.0, "text": "hi"}
    (tmp_path / "recordings_train.jsonl").write_text(json.dumps(recording))
    lines = [{"id": f"of-{n}", "channel": n, **spoken} for n in (0, [0, 1])]
    (tmp_path / "supervisions_train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    listing = scan_corpus("lhotse", Location.of(tmp_path), ["train"])
    assert [entry.utterance_id for entry in listing.entries] == ["of-[0, 1]"]
    (reject,) = listing.rejects
    assert reject.detail == "it is on one of 2 channels; write that one to a file of its own"


@pytest.mark.parametrize("name", ["train.csv", "test.tsv", "dev.jsonl"])
def test_a_table_is_not_dealt_beside_itself(tmp_path, name):
    (tmp_path / name).write_text("audio\ttext\na.wav\thello\n" * 3)
    with pytest.raises(PipelineError, match="table of its own subset beside those dealt"):
        split_table(Location.of(tmp_path / name), SplitShares())
    assert [file.name for file in tmp_path.iterdir()] == [name]
