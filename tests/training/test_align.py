import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from kaldialign import edit_distance

from featurize.featurize import featurize
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.labels import lexicon_labeller
from featurize.lexicon import load_lexicon
from featurize.schema import FeaturizeManifest
from featurize.shards import iter_rows, verify_shard
from featurize.stage import FanOut, Location, PipelineError, read_manifest
from training.align.align import align, align_fingerprint
from training.align.align_config import AlignConfig
from training.align.shards import thin_shard
from training.models.model_config import ModelConfig
from training.split_index import index_split
from training.train import train
from training.train_config import CurriculumStage, TrainConfig
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
    aligned = rows_of(align(FEW, timit, runs).location)
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
    result = align(FEW, librispeech, runs)
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
    labeller, lexicon = lexicon_labeller(before), load_lexicon(None)
    silence = len(before.labels.symbols)
    for name, row in new.items():
        assert np.array_equal(row.features, old[name].features)
        # The words one after the other, each as the lexicon says it in one way or another.
        spoken, places = row.labels[row.labels != silence].tolist(), {0}
        for word in row.text.split():
            said = [labeller.ids(phones) for phones in lexicon.lookup_all(word)]
            places = {p + len(s) for p in places for s in said if spoken[p : p + len(s)] == s}
        assert len(spoken) in places
        # A phone may fall between the middles of two rows; their order is kept.
        collapsed = row.alignment[np.flatnonzero(np.diff(row.alignment, prepend=-1))]
        left = iter(row.labels.tolist())
        assert all(phone in left for phone in collapsed.tolist())
    assert 0.05 < manifest.aligned.silence_share < 0.4
    assert 0.03 < manifest.aligned.mean_phone_s < 0.15


def test_a_finished_alignment_is_found_and_trained_on(librispeech, runs):
    first = align(FEW, librispeech, runs)
    assert align(FEW, librispeech, runs).skipped
    manifest = read_manifest(first.location, FeaturizeManifest)
    assert index_split(first.location, manifest, "dev", TrainConfig(objective="frame"))
    config = TrainConfig(model=ModelConfig(model="lstm", hidden_size=8), objective="frame")
    config = config.model_copy(update={"curriculum": (CurriculumStage(num_epochs=1),)})
    assert not train(config, first.location, runs, HERE).skipped


def test_words_that_the_lexicon_lacks_are_guessed_and_named(librispeech, synthetic_corpus, runs,
                                                            tmp_path):  # fmt: skip
    everything = load_lexicon(None)
    spoken = {word for row in rows_of(librispeech).values() for word in row.text.split()}
    unknown = min(sorted(spoken), key=lambda word: (-len(word), word))
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text(
        "".join(
            f"{word} {' '.join(phones)}\n"
            for word, phones in everything.pronunciations.items()
            if word != unknown and (len(word) < 7 or word in spoken)
        )
    )
    features = features_of(synthetic_corpus, runs, corpus="librispeech", lexicon=str(lexicon))
    aligned = align(FEW, features, runs).location
    manifest = read_manifest(aligned, FeaturizeManifest)
    symbols = manifest.labels.symbols
    assert set(manifest.aligned.guessed) == set(manifest.out_of_vocabulary) == {unknown}
    truth, guess = everything.lookup(unknown), manifest.aligned.guessed[unknown].split()
    assert edit_distance(truth, guess)["total"] < len(truth) / 2
    # What stood for the word, one symbol, is nowhere spoken.
    for row in rows_of(aligned).values():
        assert symbols.index("spn") not in row.labels
        assert symbols.index("spn") not in row.alignment


def test_an_utterance_with_another_ones_words_is_left_out_or_named(
    synthetic_corpus, runs, tmp_path, monkeypatch
):
    monkeypatch.setattr("training.align.write.MIN_JUDGED", 2)
    shutil.copytree(synthetic_corpus / "librispeech", tmp_path / "librispeech")
    folders = sorted((tmp_path / "librispeech").glob("train-synthetic/**/*.trans.txt"))
    path = max(folders, key=lambda path: len(path.read_text()))
    first, *rest = path.read_text().splitlines()
    name, *words = first.split()
    wrong = " ".join([name, *words[::-1]])
    path.write_text("\n".join([wrong, *rest]) + "\n")
    features = features_of(tmp_path, runs, corpus="librispeech")
    named = align(FEW.model_copy(update={"poor_deviations": 2.0}), features, runs)
    manifest = read_manifest(named.location, FeaturizeManifest)
    assert name in manifest.aligned.poor
    assert len(manifest.aligned.poor) < 0.2 * len(rows_of(named.location))
    strict = FEW.model_copy(update={"max_deviations": 2.0, "max_reject_share": 0.5})
    left = align(strict, features, runs)
    counts = read_manifest(left.location, FeaturizeManifest).reject_counts
    assert counts == {"poor_alignment": len(manifest.aligned.poor)}
    assert rows_of(left.location).keys() == rows_of(named.location).keys() - set(
        manifest.aligned.poor
    )
    with pytest.raises(PipelineError, match=r"poor_alignment \d"):
        align(strict.model_copy(update={"max_reject_share": 0.01}), features, runs)


def test_the_result_is_the_same_on_any_number_of_cores(librispeech, runs, tmp_path, monkeypatch):
    shards = []
    for number in (1, 3):
        monkeypatch.setattr(
            "training.align.flat_start.available_cores", lambda number=number: number
        )
        made = align(FEW, librispeech, Location.of(tmp_path / str(number)))
        manifest = read_manifest(made.location, FeaturizeManifest)
        shards.append([shard.sha256 for shard in manifest.shards])
    assert shards[0] == shards[1]


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
        align(FEW, features, runs)
    lenient = FEW.model_copy(update={"max_reject_share": 0.5})
    result = align(lenient, features, runs)
    # The same alignment judged by a stricter share is refused without being made again.
    with pytest.raises(PipelineError, match="more than max_reject_share"):
        align(FEW, features, runs)
    assert name not in rows_of(result.location)
    manifest = read_manifest(result.location, FeaturizeManifest)
    assert manifest.reject_counts == {"too_short": 1}
    rejects = pq.read_table(result.location.child("rejects.parquet").path).to_pylist()
    assert [(row["utterance_id"], row["reason"]) for row in rejects] == [(name, "too_short")]


def test_a_subset_of_which_nothing_is_left_is_said_with_its_own_reason(
    synthetic_corpus, runs, tmp_path
):
    shutil.copytree(synthetic_corpus / "librispeech", tmp_path / "librispeech")
    frames = rows_of(features_of(tmp_path, runs, corpus="librispeech"))
    spoiled = []
    for subset in ("train", "dev"):
        for file in sorted((tmp_path / "librispeech").glob(f"{subset}-synthetic/**/*.trans.txt")):
            lines = file.read_text().splitlines()
            some = lines[:1] if subset == "train" else lines
            names = [line.split()[0] for line in some]
            babble = [
                f"{name} {' '.join(['A'] * (len(frames[name].features) // 2))}" for name in names
            ]
            file.write_text("\n".join([*babble, *lines[len(some) :]]) + "\n")
            spoiled += [len(frames[name].features) // 2 for name in names]
            if subset == "train":
                break
    features = features_of(tmp_path, runs, corpus="librispeech")
    with pytest.raises(PipelineError, match="could be aligned") as caught:
        align(FEW, features, runs)
    assert "'dev-synthetic'" in str(caught.value)
    of_train, *of_dev = (f" {number} phones)" for number in spoiled)
    assert of_train not in str(caught.value)
    assert any(number in str(caught.value) for number in of_dev)


def test_features_without_phone_labels_are_refused(synthetic_corpus, runs):
    spelt = features_of(synthetic_corpus, runs, corpus="librispeech", labels="characters")
    with pytest.raises(PipelineError, match="labels=phones"):
        align(FEW, spelt, runs)


def test_a_further_pronunciation_makes_another_alignment(synthetic_corpus, runs, tmp_path):
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("A AH\n")
    features = features_of(
        synthetic_corpus,
        runs,
        corpus="librispeech",
        lexicon=str(lexicon),
        out_of_vocabulary="spell",
    )
    manifest = read_manifest(features, FeaturizeManifest)
    before = align_fingerprint(FEW, manifest)
    assert align_fingerprint(FEW, manifest) == before
    lexicon.write_text("A AH\nA(2) EY\n")
    assert align_fingerprint(FEW, manifest) != before


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
        align(FEW, features, runs)


def test_two_processes_give_the_bytes_of_one(librispeech, tmp_path, monkeypatch):
    """With utterances left out, so that shards are written a second time."""
    monkeypatch.setattr("training.align.write.MIN_JUDGED", 2)
    config = FEW.model_copy(update={"max_deviations": 1.5, "max_reject_share": 0.5})
    results = [
        align(config, librispeech, Location.of(tmp_path / fan_out.kind), fan_out=fan_out).location
        for fan_out in (FanOut(kind="sequential"), FanOut(kind="processes", num_workers=2))
    ]
    here, apart = (
        {
            name: location.child(*name.split("/")).read_bytes()
            for name in location.files()
            if not name.startswith("manifest")
        }
        for location in results
    )
    assert here == apart
    first, second = (
        read_manifest(location, FeaturizeManifest).model_dump(
            exclude={"created_at", "manifest_sha256", "checksums"}
        )
        for location in results
    )
    assert first == second
    assert first["reject_counts"]["poor_alignment"] > 0


def test_a_lost_worker_leaves_a_shard_that_can_be_thinned_again(librispeech, runs, monkeypatch):
    """It had written the shard, and was lost before it could say so: Ray runs the task again."""
    config = FEW.model_copy(update={"max_deviations": 2.0, "max_reject_share": 0.5})
    monkeypatch.setattr("training.align.write.MIN_JUDGED", 2)
    expected = align(config, librispeech, runs).location

    def twice(thinning):
        thin_shard(thinning)
        return thin_shard(thinning)

    monkeypatch.setattr("training.align.write.thin_shard", twice)
    again = align(config, librispeech, runs.child("again")).location
    names = sorted(expected.files())
    assert sorted(again.files()) == names
    for name in names:
        if not name.startswith("manifest"):
            place = name.split("/")
            assert again.child(*place).read_bytes() == expected.child(*place).read_bytes()


def test_features_that_are_only_scored_cannot_be_learnt_from(synthetic_corpus, runs):
    config = FeaturizeConfig(
        corpus="librispeech", splits=SplitsConfig(test=("test-synthetic",)), labels="phones"
    )
    features = featurize(config, Location.of(synthetic_corpus / "librispeech"), runs).location
    with pytest.raises(
        PipelineError, match=r"no utterance to learn .* name .*splits\.train, or give"
    ):
        align(FEW, features, runs)
