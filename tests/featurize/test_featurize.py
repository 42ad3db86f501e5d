"""The stage from corpus to manifest: results, reruns, interruptions, damaged corpora."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from featurize.audio import read_audio
from featurize.cmvn import Normaliser
from featurize.features import FeatureExtractor
from featurize.featurize import featurize, finish_featurize, plan_featurize
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.make_shard import make_shard
from featurize.schema import FeaturizeManifest
from featurize.shards import iter_rows, read_rows, shards_of, verify_shard
from featurize.stage import FanOut, Location, PipelineError, read_manifest, run_stage
from tests.harness.label_text import label_text

RATE = 16000
SPLITS = SplitsConfig(train=("train-tiny",), dev=("dev-tiny",), test=("test-tiny",))
SPEAKERS = {"train-tiny": ("11", "12", "13"), "dev-tiny": ("21",), "test-tiny": ("31",)}
SEQUENTIAL = FanOut(kind="sequential")


def speech(seed: int, duration_s: float = 0.6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (
        0.1
        * rng.standard_normal(int(duration_s * RATE))
        * np.linspace(0.2, 1, int(duration_s * RATE))
    )


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    """A LibriSpeech layout of five speakers with eight short utterances each."""
    root = tmp_path_factory.mktemp("corpus") / "LibriSpeech"
    lines = []
    for subset, speakers in SPEAKERS.items():
        for speaker in speakers:
            folder = root / subset / speaker / "1"
            folder.mkdir(parents=True)
            texts = []
            for number in range(8):
                name = f"{speaker}-1-{number:04d}"
                samples = speech(int(speaker) * 100 + number, 0.5 + 0.05 * number)
                soundfile.write(folder / f"{name}.flac", samples, RATE)
                texts.append(f"{name} A CAT SAW ZZOWRRGG")
            (folder / f"{speaker}-1.trans.txt").write_text("\n".join(texts) + "\n")
            lines.append(f"{speaker} | F | {subset} | 1 | Nobody")
    (root / "SPEAKERS.TXT").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def corpus(pristine, tmp_path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "LibriSpeech"))


def config(**options) -> FeaturizeConfig:
    return FeaturizeConfig(
        splits=SPLITS, **{"utterances_per_shard": 5, "row_group_size": 2} | options
    )


def run(configuration, corpus, runs, **options):
    options = {"fan_out": SEQUENTIAL} | options
    return featurize(configuration, Location.of(corpus), Location.of(runs), **options)


def content_of(location: Location) -> dict[str, bytes]:
    return {
        str(path.relative_to(location.path)): path.read_bytes()
        for path in Path(location.path).rglob("*.parquet")
    }


def test_every_utterance_comes_out_as_it_went_in(pristine, tmp_path):
    reports = []
    result = run(
        config(labels="phones", stack=2, stride=2),
        pristine,
        tmp_path,
        progress=lambda done, total: reports.append((done, total)),
    )
    assert not result.skipped
    assert result.location.uri == f"{tmp_path}/featurize/{result.fingerprint}"
    manifest = read_manifest(result.location, FeaturizeManifest)
    assert reports == [(n, len(manifest.shards)) for n in range(1, len(manifest.shards) + 1)]
    rows = list(iter_rows(result.location, manifest, SPLITS.subsets))
    assert len(rows) == len({row.utterance_id for row in rows}) == 40
    extract = FeatureExtractor(config(labels="phones", stack=2, stride=2))
    for row in rows:
        speaker = row.utterance_id.split("-")[0]
        file = pristine / row.subset / speaker / "1" / f"{row.utterance_id}.flac"
        samples = read_audio(Location(str(file)), RATE, 10).samples
        assert (row.speaker_id, row.chapter_id, row.text) == (speaker, "1", "A CAT SAW ZZOWRRGG")
        assert row.num_samples == len(samples)
        np.testing.assert_array_equal(row.features, extract(samples).astype(np.float16))
        assert label_text(manifest.labels, row.labels) == "AH K AE T S AO spn"
    assert manifest.out_of_vocabulary == {"ZZOWRRGG": 40}
    assert (manifest.num_features, manifest.frame_shift_s) == (80, 0.02)
    assert manifest.subsets["train-tiny"].num_utterances == 24
    assert manifest.subsets["train-tiny"].num_speakers == 3
    seconds = sum(row.num_samples for row in rows if row.subset == "dev-tiny") / RATE
    assert manifest.subsets["dev-tiny"].hours == pytest.approx(seconds / 3600)
    for shard in manifest.shards:
        verify_shard(result.location, shard)
        assert shard.num_utterances <= 5


def test_statistics_are_over_the_train_split_and_each_speaker(pristine, tmp_path):
    result = run(config(cmvn="speaker", feature_dtype="float32"), pristine, tmp_path)
    manifest = read_manifest(result.location, FeaturizeManifest)
    rows = list(iter_rows(result.location, manifest, SPLITS.subsets))
    train = np.concatenate([r.features for r in rows if r.subset == "train-tiny"])
    np.testing.assert_allclose(manifest.cmvn.mean, train.astype(float).mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(manifest.cmvn.std, train.astype(float).std(axis=0), rtol=1e-6)
    assert set(manifest.cmvn.speaker_mean) == {"11", "12", "13", "21", "31"}
    normalise = Normaliser(manifest.cmvn)
    own = np.concatenate([normalise(row) for row in rows if row.speaker_id == "31"])
    np.testing.assert_allclose(own.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(own.std(axis=0), 1, atol=1e-4)


def test_shards_mix_speakers(pristine, tmp_path):
    result = run(config(utterances_per_shard=12), pristine, tmp_path)
    manifest = read_manifest(result.location, FeaturizeManifest)
    for shard in shards_of(manifest, ["train-tiny"]):
        rows = read_rows(result.location, shard)
        assert len({row.utterance_id.split("-")[0] for row in rows}) > 1
        assert (np.diff([len(row.features) for row in rows]) >= 0).all()


def test_running_again_does_nothing_and_force_gives_the_same_bytes(pristine, tmp_path):
    first = run(config(), pristine, tmp_path)
    before = content_of(first.location)
    stamps = {path: path.stat().st_mtime_ns for path in Path(first.location.path).iterdir()}
    again = run(config(), pristine, tmp_path)
    assert again == replace(first, skipped=True)
    assert stamps == {p: p.stat().st_mtime_ns for p in Path(first.location.path).iterdir()}
    forced = run(config(), pristine, tmp_path, force=True)
    assert not forced.skipped
    assert content_of(forced.location) == before


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_every_fan_out_gives_the_same_bytes(pristine, tmp_path, kind):
    one = run(config(), pristine, tmp_path / "one")
    other = run(config(), pristine, tmp_path / "two", fan_out=FanOut(kind=kind, num_workers=2))
    assert content_of(one.location) == content_of(other.location)


@pytest.mark.integration
def test_ray_gives_the_same_bytes(pristine, tmp_path):
    one = run(config(), pristine, tmp_path / "one")
    ray = FanOut(kind="ray", num_workers=2)
    other = run(config(), pristine, tmp_path / "two", fan_out=ray)
    assert content_of(one.location) == content_of(other.location)


def test_what_determines_the_result_determines_its_name(pristine, tmp_path, corpus):
    def name(configuration, root=pristine):
        plan = plan_featurize(configuration, Location.of(root), Location.of(tmp_path))
        return plan.fingerprint

    base = name(config())
    assert name(config(num_bins=41)) != base
    assert name(config(max_reject_share=0.5)) == base
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("A AH\n")
    first = name(config(labels="phones", lexicon=str(lexicon)))
    lexicon.write_text("A EY\n")
    assert name(config(labels="phones", lexicon=str(lexicon))) != first
    copied = name(config(), corpus)
    with (corpus / "train-tiny/11/1/11-1.trans.txt").open("a") as transcript:
        transcript.write("11-1-0099 MORE\n")
    assert name(config(), corpus) != copied


def test_a_lexicon_that_changes_while_the_process_lives_is_read_again(pristine, tmp_path):
    lexicon = tmp_path / "lexicon.txt"
    options = {"labels": "phones", "lexicon": str(lexicon), "out_of_vocabulary": "unknown"}
    found = []
    for content in ("ANOTHER T\n", "".join(f"{word} K\n" for word in words_of_corpus(pristine))):
        lexicon.write_text(content)
        location = run(config(**options), pristine, tmp_path / "runs").location
        manifest = read_manifest(location, FeaturizeManifest)
        rows = iter_rows(location, manifest, SPLITS.subsets)
        used = {manifest.labels.symbols[label] for row in rows for label in row.labels.tolist()}
        found.append(used)
    assert found == [{"spn"}, {"K"}]


def words_of_corpus(root):
    lines = [line for f in Path(root).rglob("*.trans.txt") for line in f.read_text().splitlines()]
    return sorted({word for line in lines for word in line.split()[1:]})


def test_an_interrupted_run_is_taken_up(pristine, tmp_path):
    whole = content_of(run(config(), pristine, tmp_path / "whole").location)
    plan = plan_featurize(config(), Location.of(pristine), Location.of(tmp_path / "runs"))
    for shard in plan.shards[:3]:
        make_shard(shard)
    folder = Path(plan.location.path)
    # The first is kept; the second is damaged, the third lost its sidecar, one was half written.
    kept = (folder / plan.shards[0].file).stat().st_mtime_ns
    (folder / plan.shards[1].file).write_bytes(b"PAR1 not")
    Path(plan.shards[2].sidecar.path).write_text("{}")
    (folder / "shards" / ".shard-00004.parquet.0123.partial").write_bytes(b"half")
    (folder / "shards" / "shard-00099.parquet").write_bytes(b"stray")
    result = run(config(), pristine, tmp_path / "runs")
    assert content_of(result.location) == whole
    assert (folder / plan.shards[0].file).stat().st_mtime_ns == kept
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == sorted(
        [*whole, "manifest.json", "manifest-copy.json"]
    )


def damage(corpus: Path) -> dict[str, str]:
    """Damage ten utterances in ten ways; returns what each should be rejected for."""
    train = {n: corpus / f"train-tiny/11/1/11-1-{n:04d}.flac" for n in range(8)}
    train[0].unlink()
    train[1].write_bytes(b"this is no FLAC file, whatever its name says")
    train[2].write_bytes(train[2].read_bytes()[:-2000])
    train[3].write_bytes(b"")
    soundfile.write(train[4], speech(0, 0.05), RATE)
    soundfile.write(train[5], speech(0, 3.0), RATE)
    transcript = corpus / "train-tiny/12/1/12-1.trans.txt"
    lines = transcript.read_text().splitlines()
    lines[0] = "12-1-0000"
    lines[1] = "12-1-0001 CAFÉ"
    lines[2] = "12-1-0002_A_CAT"
    del lines[3]
    transcript.write_text("\n".join(lines) + "\n")
    return {
        "11-1-0000": "missing_audio",
        "11-1-0001": "unreadable_audio",
        "11-1-0002": "truncated_audio",
        "11-1-0003": "zero_length_audio",
        "11-1-0004": "too_short",
        "11-1-0005": "too_long",
        "12-1-0000": "empty_transcript",
        "12-1-0001": "unknown_symbol",
        "12-1-0002": "malformed_transcript",
        "12-1-0003": "missing_transcript",
    }


def test_ten_damaged_files_are_ten_rejects_with_ten_reasons(corpus, tmp_path):
    expected = damage(corpus)
    options = {"max_duration_s": 2.0, "max_reject_share": 0.45}
    result = run(config(**options), corpus, tmp_path / "runs")
    rejects = pq.read_table(Path(result.location.path) / "rejects.parquet").to_pylist()
    assert {row["utterance_id"]: row["reason"] for row in rejects} == expected
    assert all(row["detail"] and row["path"] and row["subset"] == "train-tiny" for row in rejects)
    manifest = read_manifest(result.location, FeaturizeManifest)
    assert manifest.reject_counts == dict(Counter(expected.values()))
    kept = {r.utterance_id for r in iter_rows(result.location, manifest, SPLITS.subsets)}
    assert len(kept) == 30
    assert not kept & set(expected)
    # The same features judged by a stricter share are refused without being made again.
    with pytest.raises(PipelineError, match=r"10 of \d+ utterances of train rejected"):
        run(config(**options | {"max_reject_share": 0.2}), corpus, tmp_path / "runs")


def test_too_many_rejects_fail_and_say_where_they_are(corpus, tmp_path):
    for number in range(8):
        (corpus / f"train-tiny/11/1/11-1-{number:04d}.flac").write_bytes(b"")
    with pytest.raises(PipelineError) as failure:
        run(config(), corpus, tmp_path / "runs")
    message = str(failure.value)
    assert (
        "8 of 24 utterances of train rejected (33.3%), more than max_reject_share=1.0%" in message
    )
    assert "zero_length_audio 8" in message
    file = next((tmp_path / "runs/featurize").glob("*/rejects.parquet"))
    assert str(file) in message
    assert pq.read_table(file)["reason"].to_pylist() == ["zero_length_audio"] * 8
    assert not (file.parent / "manifest.json").exists()


def test_a_split_of_nothing_but_rejects_fails(corpus, tmp_path):
    for number in range(8):
        (corpus / f"test-tiny/31/1/31-1-{number:04d}.flac").write_bytes(b"")
    with pytest.raises(PipelineError, match="every utterance of subset 'test-tiny' was rejected"):
        run(config(max_reject_share=1), corpus, tmp_path / "runs")


def test_an_empty_subset_and_a_wrong_root_fail(corpus, tmp_path):
    shutil.rmtree(corpus / "dev-tiny/21")
    with pytest.raises(PipelineError, match=r"subset 'dev-tiny' .* has no utterances"):
        run(config(), corpus, tmp_path / "runs")
    with pytest.raises(PipelineError):
        run(config(), tmp_path / "nowhere", tmp_path / "runs")


def test_resampled_audio_is_counted(corpus, tmp_path):
    file = corpus / "train-tiny/11/1/11-1-0000.flac"
    soundfile.write(file, speech(1, 0.5)[::2], RATE // 2)
    result = run(config(), corpus, tmp_path / "runs")
    assert read_manifest(result.location, FeaturizeManifest).num_resampled == 1


def test_both_layouts_of_the_synthetic_corpus(synthetic_corpus, tmp_path):
    """Aligned labels from either layout: the alignment, collapsed, is the label sequence."""
    for kind in ("librispeech", "timit"):
        subsets = {"librispeech": ("train-synthetic", "dev-synthetic"), "timit": ("train", "dev")}
        splits = SplitsConfig(train=subsets[kind][:1], dev=subsets[kind][1:])
        configuration = FeaturizeConfig(corpus=kind, splits=splits, labels="alignment")
        result = run(configuration, synthetic_corpus / kind, tmp_path)
        manifest = read_manifest(result.location, FeaturizeManifest)
        for row in iter_rows(result.location, manifest, splits.subsets):
            collapsed = row.alignment[np.flatnonzero(np.diff(row.alignment, prepend=-1))]
            missed = Counter(row.labels.tolist()) - Counter(collapsed.tolist())
            # Only a phone shorter than a frame shift may fall between two frame centres.
            assert missed.total() <= 0.1 * len(row.labels)
            assert len(row.alignment) == len(row.features)


@pytest.mark.integration
def test_from_s3_to_s3(s3_server, pristine, tmp_path):
    shutil.copytree(pristine, s3_server.folder / "featurize-corpus", dirs_exist_ok=True)
    local = run(config(), pristine, tmp_path)
    remote = run(config(), f"{s3_server.uri}/featurize-corpus", f"{s3_server.uri}/runs")
    manifest = read_manifest(remote.location, FeaturizeManifest)
    shards = read_manifest(local.location, FeaturizeManifest).shards
    assert manifest.shards == shards
    for shard in shards:
        verify_shard(remote.location, shard)
    rows = list(iter_rows(remote.location, manifest, SPLITS.subsets))
    assert len(rows) == 40
    again = run(config(), f"{s3_server.uri}/featurize-corpus", f"{s3_server.uri}/runs")
    assert again == replace(remote, skipped=True)


def test_the_parts_a_flow_calls(pristine, tmp_path):
    plan = plan_featurize(config(), Location.of(pristine), Location.of(tmp_path))
    results = [make_shard(shard) for shard in plan.shards]
    assert make_shard(plan.shards[0]) == results[0]
    run_stage(plan.location, plan.fingerprint, lambda _: finish_featurize(plan, results))
    manifest = read_manifest(plan.location, FeaturizeManifest)
    assert manifest.fingerprint == plan.fingerprint
    assert len(manifest.shards) == len(plan.shards)
    assert not plan.shards[0].sidecar.exists()
