import gzip
import os
from pathlib import Path

import kaldiio
import numpy as np
import pyarrow.parquet as pq
import pytest

from featurize.import_kaldi import base_phone, import_fingerprint, import_kaldi
from featurize.import_kaldi_config import KaldiImportConfig, KaldiSubset
from featurize.kaldi_archives import BadRecord, ScriptEntry, read_integer_vectors, read_matrix
from featurize.kaldi_archives import read_script as script_of
from featurize.schema import FeaturizeManifest
from featurize.shards import iter_rows, verify_shard
from featurize.stage import Location, PipelineError, read_manifest
from tests.harness.kaldi import gzipped_alignment, transition_model

PHONES = "<eps> 0\nSIL 1\nAH0_B 2\nAH1_I 3\nT_E 4\n#0 5\n"
# Pdf to phone number: silence, two pdfs of AH (both stresses), two of T.
PDF_PHONES = np.array([1, 2, 3, 4, 4])


def kaldi_folder(root, name, utterances, rng, text_ark=False, compression=None):
    """A data folder and alignment archives as Kaldi writes them; returns features and pdfs."""
    data = root / name
    data.mkdir(parents=True)
    pdfs, features = {}, {}
    for utterance in utterances:
        parts = [0, *rng.integers(1, 5, 4), 0]
        pdfs[utterance] = np.repeat(parts, rng.integers(1, 5, len(parts))).astype(np.int32)
        features[utterance] = rng.normal(size=(len(pdfs[utterance]), 4)).astype(np.float32)
    kaldiio.save_ark(
        str(data / "feats.ark"),
        features,
        scp=str(data / "feats.scp"),
        compression_method=compression,
    )
    phones = {utterance: PDF_PHONES[value].astype(np.int32) for utterance, value in pdfs.items()}
    for file, vectors in (("pdfs.ark", pdfs), ("phones.ark", phones)):
        if text_ark:
            lines = (f"{key} {' '.join(map(str, value))} \n" for key, value in vectors.items())
            (data / file).write_text("".join(lines))
        else:
            kaldiio.save_ark(str(data / file), vectors)
    (data / "utt2spk").write_text("".join(f"{u} {u.split('-')[0]}\n" for u in utterances))
    (data / "text").write_text("".join(f"{u} AT UT\n" for u in utterances))
    return features, pdfs


@pytest.fixture
def tables(tmp_path):
    rng = np.random.default_rng(8)
    (tmp_path / "phones.txt").write_text(PHONES)
    made = {}
    for name, split in (("tr", "train"), ("cv", "dev"), ("ev", "test")):
        names = [f"{name}{n % 2}-{n:03d}" for n in range(7)]
        made[split] = kaldi_folder(
            tmp_path,
            name,
            names,
            rng,
            text_ark=split == "dev",
            compression=2 if split == "test" else None,
        )
    config = KaldiImportConfig(
        subsets=tuple(
            KaldiSubset(
                name=name,
                split=split,
                data=str(tmp_path / name),
                pdfs=str(tmp_path / name / "pdfs.ark"),
                phones=str(tmp_path / name / "phones.ark"),
            )
            for name, split in (("tr", "train"), ("cv", "dev"), ("ev", "test"))
        ),
        phone_table=str(tmp_path / "phones.txt"),
        feature_dtype="float32",
        utterances_per_shard=4,
    )
    return config, made


def rows_of(location):
    manifest = read_manifest(location, FeaturizeManifest)
    return {row.utterance_id: row for row in iter_rows(location, manifest, manifest.subsets)}


def test_features_and_pdfs_come_out_as_kaldi_had_them(tables, tmp_path):
    config, made = tables
    result = import_kaldi(config, Location.of(tmp_path / "runs"))
    assert import_kaldi(config, Location.of(tmp_path / "runs")).skipped
    manifest = read_manifest(result.location, FeaturizeManifest)
    assert manifest.labels.symbols == ("AH", "SIL", "T")
    assert manifest.labels.scored_as == ("AH", None, "T")
    assert manifest.states.phones == (1, 0, 0, 2, 2)
    assert manifest.splits == {"train": ("tr",), "dev": ("cv",), "test": ("ev",)}
    for shard in manifest.shards:
        verify_shard(result.location, shard)
    rows = rows_of(result.location)
    assert len(rows) == 21
    for split, (features, pdfs) in made.items():
        # The test split's archive is compressed to a byte a value.
        tolerance = 0.05 if split == "test" else 0
        for name, value in features.items():
            row = rows[name]
            assert np.abs(row.features - value).max() <= tolerance
            assert row.alignment.tolist() == pdfs[name].tolist()
            assert (row.speaker_id, row.text) == (name.split("-")[0], "AT UT")
            phones = np.array(manifest.states.phones)[pdfs[name]]
            changes = np.flatnonzero(np.diff(phones, prepend=-1))
            assert row.labels.tolist() == phones[changes].tolist()


def test_unusable_utterances_are_rejects_and_too_many_stop_the_import(tables, tmp_path):
    config, _ = tables
    pdfs = dict(read_integer_vectors(Location.of(config.subsets[0].pdfs)))
    first, second, third = sorted(pdfs)[:3]
    pdfs[first] = pdfs[first][:-1]
    del pdfs[second]
    kaldiio.save_ark(config.subsets[0].pdfs, pdfs)
    script = tmp_path / "tr" / "feats.scp"
    lines = [
        line.rsplit(":", 1)[0] + ":7" if line.startswith(third) else line
        for line in script.read_text().splitlines()
    ]
    script.write_text("\n".join(lines) + "\n")
    with pytest.raises(PipelineError, match=r"3 of 7 utterances of train rejected"):
        import_kaldi(config, Location.of(tmp_path / "runs"))
    lenient = config.model_copy(update={"max_reject_share": 0.5})
    location = import_kaldi(lenient, Location.of(tmp_path / "runs")).location
    found = pq.read_table(location.child("rejects.parquet").path).to_pylist()
    assert {row["utterance_id"]: row["reason"] for row in found} == {
        first: "bad_alignment",
        second: "missing_alignment",
        third: "unreadable_features",
    }
    assert len(rows_of(location)) == 18


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("text", "missing_transcript"),
        ("utt2spk", "unknown_speaker"),
        ("feats.scp", "unreadable_features"),
    ],
)
def test_a_table_of_half_of_the_utterances_is_no_import(tables, tmp_path, table, reason):
    config, _ = tables
    file = tmp_path / "ev" / table
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:4]))
    runs = Location.of(tmp_path / "runs")
    with pytest.raises(PipelineError, match=f"3 of 7 utterances of test rejected.*{reason} 3"):
        import_kaldi(config, runs)
    lenient = config.model_copy(update={"max_reject_share": 0.5})
    manifest = read_manifest(import_kaldi(lenient, runs).location, FeaturizeManifest)
    assert manifest.reject_counts == {reason: 3}
    assert manifest.subsets["ev"].num_utterances == 4


@pytest.mark.parametrize(("seconds", "is_rejected"), [(None, False), (0.01, True), (9.0, True)])
def test_features_are_held_against_the_length_of_the_audio(tables, tmp_path, seconds, is_rejected):
    config, made = tables
    durations = {key: 0.01 * len(value) + 0.015 for key, value in made["dev"][0].items()}
    longest = max(durations, key=lambda key: durations[key])
    durations[longest] = seconds or durations[longest]
    lines = (f"{key} {value:.3f}\n" for key, value in durations.items())
    (tmp_path / "cv" / "utt2dur").write_text("".join(lines))
    config = config.model_copy(update={"max_reject_share": 0.5, "frame_shift_s": 0.01})
    location = import_kaldi(config, Location.of(tmp_path / "runs")).location
    counts = read_manifest(location, FeaturizeManifest).reject_counts
    assert counts == ({"bad_alignment": 1} if is_rejected else {})


def test_a_wrong_frame_shift_is_noticed_where_the_length_is_known(tables, tmp_path):
    config, made = tables
    lines = (f"{key} {0.03 * len(value):.3f}\n" for key, value in made["train"][0].items())
    (tmp_path / "tr" / "utt2dur").write_text("".join(lines))
    with pytest.raises(PipelineError, match="check frame_shift_s"):
        import_kaldi(config, Location.of(tmp_path / "runs"))


def test_the_frame_shift_that_kaldi_keeps_is_held_against_the_configured_one(tables, tmp_path):
    config, _ = tables
    file = tmp_path / "cv" / "frame_shift"
    file.write_text("0.01\n")
    import_kaldi(config, Location.of(tmp_path / "runs"))
    for content, told in (("0.03\n", "says 0.03; set frame_shift_s"), ("ten\n", "no number of")):
        file.write_text(content)
        with pytest.raises(PipelineError, match=told):
            import_kaldi(config, Location.of(tmp_path / "runs"), force=True)


def test_a_data_folder_without_any_transcripts_is_imported(tables, tmp_path):
    config, _ = tables
    (tmp_path / "tr" / "text").unlink()
    rows = rows_of(import_kaldi(config, Location.of(tmp_path / "runs")).location)
    assert rows["tr0-000"].text == ""


def _append(file):
    file.write_bytes(file.read_bytes() + b"\n")


def _touch(file):
    later = file.stat().st_mtime_ns + 1_000_000
    os.utime(file, ns=(later, later))


@pytest.mark.parametrize(
    ("file", "change"),
    [
        *((f"tr/{name}", _append) for name in ("feats.scp", "utt2spk", "text", "feats.ark")),
        ("tr/pdfs.ark", _append),
        ("tr/utt2dur", lambda file: file.write_text("tr0-000 1.0\n")),
        ("tr/phones.ark", _append),
        ("phones.txt", _append),
        ("tr/text", lambda file: file.unlink()),
        # As many bytes as before, of which only the time tells.
        ("cv/feats.ark", _touch),
        ("cv/feats.ark", lambda file: file.unlink()),
    ],
)
def test_everything_that_is_read_names_the_import(tables, tmp_path, file, change):
    config, _ = tables
    before = import_fingerprint(config)
    assert import_fingerprint(config) == before
    change(tmp_path / file)
    assert import_fingerprint(config) != before


def test_changed_transcripts_are_imported_anew(tables, tmp_path):
    config, _ = tables
    runs = Location.of(tmp_path / "runs")
    before = import_kaldi(config, runs)
    text = tmp_path / "tr" / "text"
    text.write_text(text.read_text().replace("AT UT", "UT AT"))
    after = import_kaldi(config, runs)
    assert not after.skipped
    assert rows_of(before.location)["tr0-000"].text == "AT UT"
    assert rows_of(after.location)["tr0-000"].text == "UT AT"


def test_commands_and_pickles_are_not_run(tables, tmp_path):
    witness = tmp_path / "witness"
    (tmp_path / "evil.scp").write_text(f"a touch {witness} |\n")
    with pytest.raises(PipelineError, match="commands are not run"):
        script_of(Location.of(tmp_path / "evil.scp"), Location.of(tmp_path))
    (tmp_path / "evil.ark").write_bytes(b"PKL\x80\x04cos\nsystem\n(Vtouch witness\ntR.")
    with pytest.raises(BadRecord, match="no binary matrix"):
        read_matrix(ScriptEntry(Location.of(tmp_path / "evil.ark"), 0))
    (tmp_path / "evil2.ark").write_bytes(b"a PKL\x80\x04cos\nsystem\n(Vtouch witness\ntR.")
    with pytest.raises(PipelineError, match="not a whole archive"):
        list(read_integer_vectors(Location.of(tmp_path / "evil2.ark")))
    assert not witness.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\0BFM \4\xff\xff\xff\x7f\4\xff\xff\xff\x7f",
        b"\0BFM \4\x02\0\0\0\4\x02\0\0\0short",
        b"\0BCM " + b"\xff" * 40,
        b"\0BFM ",
        b"",
    ],
)
def test_damaged_matrices_are_named(tmp_path, content):
    (tmp_path / "a.ark").write_bytes(content)
    with pytest.raises(BadRecord, match=r"a\.ark|bytes"):
        read_matrix(ScriptEntry(Location.of(tmp_path / "a.ark"), 0))


@pytest.mark.parametrize(
    "content",
    [
        b"a \0B\4\x04\xff\xff\xff\x7f\4",
        b"a \0BFM \4",
        b"a 1 x 2\n",
        b"a 1 2",
        b"k" * 300,
        b"abc",
        b"a ",
    ],
)
def test_damaged_alignments_are_named(tmp_path, content):
    (tmp_path / "a.ark").write_bytes(content)
    with pytest.raises(PipelineError, match="not a whole archive"):
        list(read_integer_vectors(Location.of(tmp_path / "a.ark")))


def test_every_cut_of_an_archive_is_noticed_or_between_records(tables):
    config, _ = tables
    file = Location.of(config.subsets[0].pdfs)
    whole = dict(read_integer_vectors(file))
    data = file.read_bytes()
    for length in range(0, len(data), 3):
        file.write_bytes(data[:length])
        try:
            found = dict(read_integer_vectors(file))
        except PipelineError:
            continue
        assert all(found[key].tolist() == whole[key].tolist() for key in found)


def test_short_text_records_stay_apart(tmp_path):
    (tmp_path / "a.ark").write_text("a 5\nb\t\nc 1 2 3 \n")
    found = {k: v.tolist() for k, v in read_integer_vectors(Location.of(tmp_path / "a.ark"))}
    assert found == {"a": [5], "b": [], "c": [1, 2, 3]}


def test_base_phones():
    assert [base_phone(name) for name in ("AH0_B", "AH1", "SIL_S", "T_I", "sil", "ax")] == [
        "AH", "AH", "SIL", "T", "sil", "ax",
    ]  # fmt: skip


def with_own_alignments(config, root):
    """The same import, by ali.*.gz and final.mdl: pdf n is the one state of its own phone."""
    model = transition_model(
        [[[0, 1], []]], {1: 0, 2: 0, 3: 0, 4: 0}, [(p, 0, n, n) for n, p in enumerate(PDF_PHONES)]
    )
    subsets = []
    for subset in config.subsets:
        folder = root / f"{subset.name}_ali"
        folder.mkdir()
        (folder / "final.mdl").write_bytes(model)
        pdfs = dict(read_integer_vectors(Location.of(subset.pdfs)))
        # Two ids a pdf, from 1: its self-loop and the way on.
        ids = {key: (2 * value + 1 + np.arange(len(value)) % 2) for key, value in pdfs.items()}
        for job in (1, 2):
            own = {key: value for key, value in ids.items() if int(key[-1]) % 2 == job % 2}
            gzipped_alignment(folder / f"ali.{job}.gz", own)
        subsets.append(
            KaldiSubset(
                name=subset.name, split=subset.split, data=subset.data, alignment=str(folder)
            )
        )
    return config.model_copy(update={"subsets": tuple(subsets)})


def test_alignments_and_their_model_say_the_same_as_their_pdfs_and_phones(tables, tmp_path):
    config, _ = tables
    own = import_kaldi(with_own_alignments(config, tmp_path), Location.of(tmp_path / "runs"))
    other = import_kaldi(config, Location.of(tmp_path / "runs"))
    assert own.fingerprint != other.fingerprint
    expected = rows_of(other.location)
    for name, row in rows_of(own.location).items():
        assert row.alignment.tolist() == expected[name].alignment.tolist()
        assert row.labels.tolist() == expected[name].labels.tolist()


@pytest.mark.parametrize("file", ["tr_ali/final.mdl", "cv_ali/ali.1.gz", "cv_ali/ali.2.gz"])
def test_every_file_of_an_alignment_names_the_import(tables, tmp_path, file):
    config = with_own_alignments(tables[0], tmp_path)
    before = import_fingerprint(config)
    _append(tmp_path / file)
    assert import_fingerprint(config) != before


@pytest.mark.parametrize(
    "given", [{}, {"pdfs": "p"}, {"pdfs": "p", "phones": "q", "alignment": "a"}]
)
def test_an_alignment_is_given_once(given):
    with pytest.raises(ValueError, match="either alignment alone, or both pdfs and phones"):
        KaldiSubset(name="a", split="train", data="d", **given)


def test_tables_may_be_zipped_and_begin_with_a_mark(tables, tmp_path):
    config, _ = tables
    runs = Location.of(tmp_path / "runs")
    plain = rows_of(import_kaldi(config, runs).location)
    for subset in ("tr", "cv", "ev"):
        for table in ("feats.scp", "utt2spk", "text"):
            file = tmp_path / subset / table
            content = b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n")
            file.write_bytes(gzip.compress(content) if subset != "ev" else content)
        for table in ("pdfs.ark", "phones.ark"):
            file = tmp_path / subset / table
            file.write_bytes(gzip.compress(file.read_bytes()))
    marked = rows_of(import_kaldi(config, runs).location)
    assert sorted(marked) == sorted(plain)
    for name, row in plain.items():
        assert (marked[name].speaker_id, marked[name].text) == (row.speaker_id, row.text)
        assert marked[name].alignment.tolist() == row.alignment.tolist()


def test_separators_within_a_transcript_end_no_line(tables, tmp_path):
    config, _ = tables
    text = tmp_path / "tr" / "text"
    text.write_text(text.read_text().replace("AT UT", "AT\u2028UT \x85 AT"))
    rows = rows_of(import_kaldi(config, Location.of(tmp_path / "runs")).location)
    assert rows["tr0-000"].text == "AT\u2028UT \x85 AT"


@pytest.mark.parametrize("table", ["text", "utt2spk", "utt2dur", "feats.scp"])
def test_a_key_that_comes_twice_is_named(tables, tmp_path, table):
    file = tmp_path / "cv" / table
    if table == "utt2dur":
        file.write_text("cv0-000 1.0\n")
    file.write_text(file.read_text() + file.read_text().splitlines()[0] + "\n")
    with pytest.raises(PipelineError, match=r"line \d+: cv0-000 comes twice"):
        import_kaldi(tables[0], Location.of(tmp_path / "runs"))


def test_a_table_of_speakers_that_is_none_is_named(tables, tmp_path):
    """spk2utt, in the place of utt2spk."""
    (tmp_path / "cv" / "utt2spk").write_text("cv0 cv0-000 cv0-002\ncv1 cv1-001\n")
    with pytest.raises(PipelineError, match="line 1 is not 'KEY VALUE'"):
        import_kaldi(tables[0], Location.of(tmp_path / "runs"))


@pytest.mark.parametrize("is_relative", [False, True])
def test_archives_that_were_moved_are_found(tables, tmp_path, is_relative, caplog):
    config, _ = tables
    runs = Location.of(tmp_path / "runs")
    before = rows_of(import_kaldi(config, runs).location)
    features = tmp_path / "exp" / "fmllr"
    features.mkdir(parents=True)
    for subset in ("tr", "cv", "ev"):
        script = tmp_path / subset / "feats.scp"
        (tmp_path / subset / "feats.ark").rename(features / f"{subset}.ark")
        named = f"{'' if is_relative else '/gone/egs/timit/s5/'}exp/fmllr/{subset}.ark"
        content = script.read_text().replace(str(tmp_path / subset / "feats.ark"), named)
        script.write_text(content)
    after = rows_of(import_kaldi(config, runs).location)
    assert sorted(after) == sorted(before)
    assert all((after[name].features == before[name].features).all() for name in after)
    assert f"{features / 'tr.ark'} is read in its place" in caplog.text


def test_ranges_of_rows_are_read_and_others_named(tables, tmp_path):
    _, made = tables
    script = tmp_path / "tr" / "feats.scp"
    entries = script_of(Location.of(script), Location.of(tmp_path))
    whole = made["train"][0]["tr0-000"]
    num_rows = len(whole)
    lines = script.read_text().splitlines()
    for given, expected in (
        ("[1:2]", whole[1:3]),
        (f"[0:{num_rows - 1}]", whole),
        (f"[2:{num_rows + 2}]", whole[2:]),
    ):
        script.write_text("\n".join([lines[0] + given, *lines[1:]]))
        found = script_of(Location.of(script), Location.of(tmp_path))
        assert found.keys() == entries.keys()
        assert (read_matrix(found["tr0-000"]) == expected).all()
    for given in (f"[0:{num_rows + 3}]", f"[{num_rows}:{num_rows}]", "[2:1]"):
        script.write_text("\n".join([lines[0] + given, *lines[1:]]))
        with pytest.raises(BadRecord, match=f"rows .* of {num_rows} in feats.ark"):
            read_matrix(script_of(Location.of(script), Location.of(tmp_path))["tr0-000"])
    script.write_text("\n".join([lines[0] + "[:,0:2]", *lines[1:]]))
    with pytest.raises(PipelineError, match=r"line 1: of ranges, only rows \[FIRST:LAST\]"):
        script_of(Location.of(script), Location.of(tmp_path))


def test_the_example_is_a_configuration():
    example = Path(__file__).parents[2] / "examples" / "kaldi.json"
    config = KaldiImportConfig.model_validate_json(example.read_bytes())
    assert [subset.split for subset in config.subsets] == ["train", "dev", "test"]
