"""From transcripts to error rates over tied states: featurize, align, train, evaluate."""

import json
import shutil

import numpy as np
import pytest

from evaluation.chosen import evaluation_of_all
from evaluation.config import EvaluateConfig, ViterbiConfig
from evaluation.decoding import symbol_search
from evaluation.evaluate import evaluate
from evaluation.metrics import EvaluationMetrics
from evaluation.spike_raster import capture_raster, choose_shown
from featurize.corpora.scan import subsets_at
from featurize.featurize import featurize
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.phones import PHONE_48_TO_39
from featurize.schema import FeaturizeManifest
from featurize.shards import iter_rows
from featurize.stage import FanOut, Location, read_manifest, write_manifest
from flows.recipes import recipe_named
from flows.stage_commands import featurize_for_scoring
from training.align.align import align
from training.align.align_config import AlignConfig, TargetsConfig
from training.align.states import ContextStates, states_of
from training.batching import collate
from training.manifest import TrainManifest
from training.models.model_config import ModelConfig
from training.train import train
from training.train_config import CurriculumStage, OptimizerConfig, TrainConfig
from training.trained_model import load_model
from training.worker_config import WorkerConfig

HERE = WorkerConfig(in_process=True, threads_per_worker=1)
SENONES = TargetsConfig(kind="senones", num_senones=200, min_frames=15)


def trained_on(aligned, runs, num_epochs, model="lstm"):
    config = TrainConfig(
        model=ModelConfig(model=model, hidden_size=48, num_layers=1, dropout=0.0),
        objective="frame",
        curriculum=(CurriculumStage(num_epochs=num_epochs, chunk_frames=100),),
        batch_size=16,
        optimizer=OptimizerConfig(learning_rate=1e-2, constant_epochs=num_epochs),
    )
    return train(config, aligned, runs, HERE).location


def metrics_of(evaluation):
    return EvaluationMetrics.model_validate(
        json.loads(evaluation.location.child("metrics.json").read_bytes())
    )


def made(config, root, runs):
    return featurize(config, Location.of(root), runs, fan_out=FanOut(kind="sequential")).location


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Location.of(tmp_path_factory.mktemp("hybrid-runs"))


@pytest.fixture(scope="module")
def tied(synthetic_corpus, runs):
    """TIMIT's layout, featurized as the recipe says and aligned to fewer senones than it says."""
    recipe = recipe_named("timit")
    features = made(recipe.featurize, synthetic_corpus / "timit", runs)
    config = AlignConfig(targets=SENONES, num_gaussian_rounds=8, num_mixtures=2)
    return align(config, features, runs).location


def test_tied_states_fit_the_phones_they_are_of(tied):
    manifest = read_manifest(tied, FeaturizeManifest)
    states, num_symbols = manifest.states, len(manifest.labels.symbols)
    assert 3 * num_symbols < len(states.phones) <= 200
    silence = manifest.labels.symbols.index("sil")
    assert states.phones.count(silence) == 3
    sequence = ContextStates(states, num_symbols)
    frames = np.zeros(len(states.phones), int)
    for row in iter_rows(tied, manifest, manifest.splits["train"]):
        assert row.alignment.max() < len(states.phones)
        # The states come in the order of the utterance's own sequence, and none is left out.
        runs_of = row.alignment[np.flatnonzero(np.diff(row.alignment, prepend=-1))]
        expected = states_of(sequence, row.labels)
        expected = expected[np.flatnonzero(np.diff(expected, prepend=-1))]
        assert runs_of.tolist() == expected.tolist()
        frames += np.bincount(row.alignment, minlength=len(frames))
    split = np.array([bool(a or b) for a, b in zip(states.left, states.right, strict=True)])
    assert split.any()
    # A leaf of the tree has its frames, up to what the last realignment moved.
    assert frames[split].min() > SENONES.min_frames / 2


def test_a_model_of_senones_is_scored_on_39_phones(tied, runs):
    model = trained_on(tied, runs, num_epochs=8)
    manifest = read_manifest(model, TrainManifest)
    assert manifest.states == read_manifest(tied, FeaturizeManifest).states
    metrics = metrics_of(evaluate(EvaluateConfig(), [model], tied, runs))
    per = metrics.models[0].error_rates.per
    assert metrics.models[0].decoder == "viterbi"
    assert per.value < 0.75
    assert {s for s in manifest.labels.scored_as if s is not None} <= set(PHONE_48_TO_39.values())


def test_a_spiking_model_of_senones_is_drawn_with_its_phones(tied, runs):
    """Targets are states, of which there are more than symbols: they are drawn as the phones."""
    model = trained_on(tied, runs, num_epochs=1, model="v2")
    result = evaluate(EvaluateConfig(), [model], tied, runs)
    assert (result.location.child("plots", "spike_raster_v2.png")).exists()
    manifest = read_manifest(tied, FeaturizeManifest)
    recogniser = load_model(model)
    row = choose_shown(tied, manifest, manifest.splits["test"])
    decode = symbol_search(recogniser, ViterbiConfig())
    raster = capture_raster(recogniser, "v2", row, manifest.cmvn, decode, manifest)
    symbols = manifest.labels.symbols
    assert [timed.symbol for timed in raster.reference] == [symbols[n] for n in row.labels]
    batch = collate([row], manifest.cmvn)
    output = recogniser.network(batch.x_TBF, batch.lengths_B)
    heard = decode(output.log_probs_TBO[:, 0].detach().numpy())
    assert [timed.symbol for timed in raster.hypothesis] == [symbols[n] for n in heard]


def test_speakers_of_another_corpus_are_scored_by_pointing_at_it(synthetic_corpus, runs, tmp_path):
    """No subset of the other corpus is named anywhere, and its features know no alignment."""
    recipe = recipe_named("librispeech-100h")
    splits = SplitsConfig(train=("train-synthetic",), dev=("dev-synthetic",))
    config = recipe.featurize.model_copy(update={"splits": splits})
    features = made(config, synthetic_corpus / "librispeech", runs)
    aligned = align(AlignConfig(num_gaussian_rounds=6, num_mixtures=1), features, runs)
    model = trained_on(aligned.location, runs, num_epochs=2)
    other = tmp_path / "elsewhere"
    other.mkdir()
    source = synthetic_corpus / "librispeech"
    (other / "SPEAKERS.TXT").write_bytes((source / "SPEAKERS.TXT").read_bytes())
    shutil.copytree(source / "test-synthetic", other / "some-people")
    assert subsets_at("librispeech", Location.of(other)) == ("some-people",)
    dealt = {"speaker_subsets": [{"name": "dev-synthetic", "speakers": ["1"]}]}
    trained = read_manifest(aligned.location, FeaturizeManifest)
    own = {"config": trained.config | dealt, "checksums": {}}
    write_manifest(aligned.location, trained.model_copy(update=own))
    wanted = featurize_for_scoring([model], Location.of(other))
    assert wanted == config.model_copy(update={"splits": wanted.splits})
    assert wanted.splits == SplitsConfig(test=("some-people",))
    table = tmp_path / "a-table"
    table.mkdir()
    (table / "spoken.csv").write_text("audio,text\na.wav,Hello\n")
    by_table = {"corpus": "manifest", "splits": SplitsConfig(test=("spoken",))}
    told = featurize_for_scoring([model], Location.of(table))
    assert told == wanted.model_copy(update=by_table)  # of another layout than the model's own
    scored = made(wanted, other, runs)
    manifest = read_manifest(scored, FeaturizeManifest)
    assert manifest.labels.kind == "phones"
    first = evaluate(EvaluateConfig(split="dev"), [model], aligned.location, runs)
    assert evaluation_of_all([model]) == first.location
    config = EvaluateConfig(search_of=first.location.uri)
    metrics = metrics_of(evaluate(config, [model], scored, runs))
    assert metrics.models[0].viterbi == metrics_of(first).models[0].viterbi
    assert metrics.models[0].has_heard == 0
    assert metrics.subsets == ("some-people",)
    assert 0.1 < metrics.models[0].error_rates.per.value < 1.0


def test_features_that_are_only_scored_have_statistics_of_their_own(synthetic_corpus, runs):
    config = FeaturizeConfig(splits=SplitsConfig(test=("test-synthetic",)))
    manifest = read_manifest(
        made(config, synthetic_corpus / "librispeech", runs), FeaturizeManifest
    )
    assert np.isfinite(manifest.cmvn.mean).all()
    assert manifest.splits == {"train": (), "dev": (), "test": ("test-synthetic",)}
