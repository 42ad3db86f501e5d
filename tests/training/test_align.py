import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from featurize.featurize import featurize
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.schema import FeaturizeManifest
from featurize.shards import iter_rows, verify_shard
from featurize.stage import FanOut, Location, PipelineError, read_manifest
from training.align.align import align
from training.align.align_config import AlignConfig
from training.data import index_split
from training.models.model_config import ModelConfig
from training.train import train
from training.train_config import CurriculumStage, OptimizerConfig, TrainConfig
from training.worker_config import WorkerConfig

HERE = WorkerConfig(in_process=True, threads_per_worker=1)
FEW = AlignConfig(num_gaussian_rounds=8, num_mixtures=2)
TIMIT = SplitsConfig(train=("train",), dev=("dev",), test=("test",))
LIBRISPEECH = SplitsConfig(
    train=("train-synthetic",), dev=("dev-synthetic",), test=("test-synthetic",)
)


def features_of(root, runs, **changes):
    layout = changes["corpus"]
    splits = TIMIT if layout == "timit" else LIBRISPEECH
    config = FeaturizeConfig(
        **({"splits": splits, "cmvn": "speaker", "labels": "phones"} | changes)
    )
    fan_out = FanOut(kind="sequential")
    return featurize(config, Location.of(root / layout), runs, fan_out=fan_out).location


def rows_of(location):
    manifest = read_manifest(location, FeaturizeManifest)
    return {row.utterance_id: row for row in iter_rows(location, manifest, manifest.subsets)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Location.of(tmp_path_factory.mktemp("align-runs"))


@pytest.fixture(scope="module")
def timit(synthetic_corpus, runs):
    return features_of(synthetic_corpus, runs, corpus="timit")


@pytest.fixture(scope="module")
def librispeech(synthetic_corpus, runs):
    return features_of(synthetic_corpus, runs, corpus="librispeech", stack=3, stride=3)


def test_a_minute_of_speech_aligns_close_to_the_truth(synthetic_corpus, timit, runs):
    aligned = rows_of(align(FEW, timit, runs, HERE).location)
    truth = rows_of(features_of(synthetic_corpus, runs, corpus="timit", labels="alignment"))
    assert aligned.keys() == truth.keys()
    agree = np.concatenate([aligned[name].alignment == truth[name].alignment for name in truth])
    assert agree.mean() > 0.65
    boundaries = [
        (np.flatnonzero(np.diff(aligned[name].alignment)), np.flatnonzero(np.diff(row.alignment)))
        for name, row in truth.items()
    ]
    distances = [np.abs(ours - theirs) for ours, theirs in boundaries if len(ours) == len(theirs)]
    assert np.median(np.concatenate(distances)) <= 2


def test_the_result_is_a_feature_set_like_any_other(librispeech, runs):
    result = align(FEW, librispeech, runs, HERE)
    assert result.location == runs.child("align", result.fingerprint)
    before = read_manifest(librispeech, FeaturizeManifest)
    manifest = read_manifest(result.location, FeaturizeManifest)
    assert manifest.labels.kind == "alignment"
    assert manifest.labels.symbols == (*before.labels.symbols, "SIL")
    assert manifest.labels.scored_as == (*before.labels.scored_as, None)
    assert manifest.upstream == {"features": before.fingerprint}
    assert manifest.aligned.features == librispeech.uri
    assert manifest.cmvn == before.cmvn
    assert manifest.subsets == before.subsets
    for shard in manifest.shards:
        verify_shard(result.location, shard)
    old, new = rows_of(librispeech), rows_of(result.location)
    silence = len(before.labels.symbols)
    for name, row in new.items():
        assert np.array_equal(row.features, old[name].features)
        assert row.labels[row.labels != silence].tolist() == old[name].labels.tolist()
        assert row.labels[0] == row.labels[-1] == silence
        # A phone may fall between the middles of two rows; their order is kept.
        collapsed = row.alignment[np.flatnonzero(np.diff(row.alignment, prepend=-1))]
        left = iter(row.labels.tolist())
        assert all(phone in left for phone in collapsed.tolist())
    assert 0.05 < manifest.aligned.silence_share < 0.4
    assert 0.03 < manifest.aligned.mean_phone_s < 0.15


def test_a_finished_alignment_is_found_and_trained_on(librispeech, runs):
    first = align(FEW, librispeech, runs, HERE)
    assert align(FEW, librispeech, runs, HERE).skipped
    unused = FEW.model_copy(update={"network": TrainConfig(objective="frame")})
    assert align(unused, librispeech, runs, HERE).fingerprint == first.fingerprint
    manifest = read_manifest(first.location, FeaturizeManifest)
    assert index_split(first.location, manifest, "dev", "frame")
    config = TrainConfig(model=ModelConfig(model="lstm", hidden_size=8), objective="frame")
    config = config.model_copy(update={"curriculum": (CurriculumStage(num_epochs=1),)})
    assert not train(config, first.location, runs, HERE).skipped


def test_a_network_realigns(librispeech, runs):
    network = TrainConfig(
        model=ModelConfig(model="lstm", hidden_size=32, dropout=0.0),
        objective="frame",
        curriculum=(CurriculumStage(num_epochs=15, chunk_frames=40),),
        batch_size=8,
        optimizer=OptimizerConfig(learning_rate=1e-2, constant_epochs=15),
    )
    config = FEW.model_copy(update={"num_network_rounds": 1, "network": network})
    result = align(config, librispeech, runs, HERE)
    gaussian = align(FEW, librispeech, runs, HERE)
    assert gaussian.skipped, "the round before is a result of its own"
    before, after = rows_of(gaussian.location), rows_of(result.location)
    agree = np.concatenate([before[name].alignment == row.alignment for name, row in after.items()])
    assert 0.4 < agree.mean() < 1.0


def test_utterances_too_short_for_their_phones_are_rejects(synthetic_corpus, runs, tmp_path):
    shutil.copytree(synthetic_corpus / "librispeech", tmp_path / "librispeech")
    transcripts = min((tmp_path / "librispeech").glob("train-synthetic/**/*.trans.txt"))
    first, *rest = transcripts.read_text().splitlines()
    name = first.split()[0]
    # A phone for about every second frame: enough for CTC, too much for three states a phone.
    num_frames = len(rows_of(features_of(tmp_path, runs, corpus="librispeech"))[name].features)
    babble = " ".join(["A"] * (num_frames // 2))
    transcripts.write_text("\n".join([f"{name} {babble}", *rest]) + "\n")
    features = features_of(tmp_path, runs, corpus="librispeech")
    assert name in rows_of(features)
    with pytest.raises(PipelineError, match=r"1 of \d+ utterances of train rejected.*too_short 1"):
        align(FEW, features, runs, HERE)
    lenient = FEW.model_copy(update={"max_reject_share": 0.5})
    result = align(lenient, features, runs, HERE)
    # The same alignment judged by a stricter share is refused without being made again.
    with pytest.raises(PipelineError, match="more than max_reject_share"):
        align(FEW, features, runs, HERE)
    assert name not in rows_of(result.location)
    manifest = read_manifest(result.location, FeaturizeManifest)
    assert manifest.reject_counts == {"too_short": 1}
    rejects = pq.read_table(result.location.child("rejects.parquet").path).to_pylist()
    assert [(row["utterance_id"], row["reason"]) for row in rejects] == [(name, "too_short")]


def test_features_without_phone_labels_are_refused(synthetic_corpus, runs):
    spelt = features_of(synthetic_corpus, runs, corpus="librispeech", labels="characters")
    with pytest.raises(PipelineError, match="labels=phones"):
        align(FEW, spelt, runs, HERE)


def test_a_changed_lexicon_is_noticed(synthetic_corpus, runs, tmp_path):
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("A AH\n")
    features = features_of(
        synthetic_corpus,
        runs,
        corpus="librispeech",
        lexicon=str(lexicon),
        out_of_vocabulary="spell",
    )
    lexicon.write_text("A EY\nTHE DH AH\n")
    with pytest.raises(PipelineError, match="lexicon changed"):
        align(FEW, features, runs, HERE)
