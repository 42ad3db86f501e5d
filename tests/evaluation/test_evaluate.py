import hashlib
import json

import kaldialign
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load, save

from evaluation.config import EvaluateConfig, ViterbiConfig
from evaluation.evaluate import evaluate
from evaluation.manifest import EvaluateManifest
from evaluation.metrics import EvaluationMetrics
from evaluation.recognise import choose_cmvn
from featurize.schema import CmvnStatistics, FeaturizeManifest, LabelInventory
from featurize.shards import iter_rows
from featurize.stage import Location, PipelineError, read_manifest
from featurize.stage.manifest import write_sealed
from tests.harness.batches import stream_batches
from training.batching import collate
from training.losses import greedy_ctc_labels
from training.manifest import TrainManifest
from training.trained_model import load_model

NUM_FEATURES = 7
MODELS = ("v2", "v1", "conventional", "gru", "lstm")
CHARACTERS = LabelInventory(
    kind="characters",
    symbols=(" ", "A", "B", "<"),
    scored_as=(" ", "A", "B", "<"),
    word_boundary=0,
)
ALIGNED = LabelInventory(
    kind="alignment",
    symbols=("sil", "cl", "aa", "ao", "q"),
    scored_as=("sil", "sil", "aa", "aa", None),
)


def table(location, name):
    with location.child(name).open_read() as stream:
        return pq.read_table(stream).to_pylist()


def metrics_of(result):
    return EvaluationMetrics.model_validate_json(result.location.child("metrics.json").read_bytes())


@pytest.fixture
def run(tmp_path):
    def evaluate_here(models, features, progress=None, force=False, **config):
        runs = Location.of(tmp_path / "runs")
        config = EvaluateConfig(**({"batch_size": 3, "num_bootstrap": 200} | config))
        return evaluate(config, models, features, runs, force=force, progress=progress)

    return evaluate_here


def test_five_models_give_one_whole_comparison(run, write_features, write_model):
    features = write_features()
    seen = []
    result = run([write_model(model) for model in MODELS], features, progress=seen.append)
    metrics = metrics_of(result)
    assert [model.model for model in metrics.models] == list(MODELS)
    manifest = read_manifest(result.location, EvaluateManifest)
    for name in manifest.files:
        assert result.location.child(*name.split("/")).exists(), name
    plots = [name for name in manifest.files if name.startswith("plots/")]
    assert len(plots) == 4 + 3  # a raster of each spiking model
    page = result.location.child("report.html").read_bytes().decode()
    assert page.count("<svg ") == len(plots)
    assert {(d.model, d.compared_with) for d in metrics.differences} >= {
        ("v2", "lstm"),
        ("v1", "v2"),
        ("conventional", "v1"),
    }
    assert (seen[-1].model, seen[-1].model_number, seen[-1].num_done) == ("lstm", 4, 11)
    for model in metrics.models:
        assert model.num_utterances == 11
        assert model.error_rates.per.low <= model.error_rates.per.value
        assert model.error_rates.wer is None
        assert len(model.spike_density) == (3 if model.model in MODELS[:3] else 0)


def test_tables_and_metrics_agree_to_the_last_integer(run, write_features, write_model):
    features = write_features()
    result = run([write_model("v2"), write_model("gru")], features)
    terms = table(result.location, "multiplications.parquet")
    rows = table(result.location, "hypotheses.parquet")
    for model in metrics_of(result).models:
        own = [row for row in terms if row["model"] == model.label]
        frames = {row["utterance_id"]: row["num_frames"] for row in own}
        assert sum(frames.values()) == model.num_frames
        matrix = [row for row in own if row["term"] != "elementwise"]
        assert all(r["multiplications"] == r["nonzeros"] * r["fan_out"] for r in matrix)
        total = sum(row["multiplications"] for row in matrix)
        assert model.multiplications_per_frame.audited == total / model.num_frames
        assert model.additions_per_frame == sum(r["additions"] for r in own) / model.num_frames
        published = model.multiplications_per_frame
        in_terms = sum(v for t, v in published.terms.items() if t != "elementwise")
        assert in_terms == pytest.approx(published.audited)
        hypotheses = [row for row in rows if row["model"] == model.label]
        assert len(hypotheses) == 11
        errors = sum(row["errors"] for row in hypotheses)
        length = sum(row["reference_length"] for row in hypotheses)
        assert model.error_rates.per.value == errors / length


def test_savings_are_over_dense_models_of_the_same_size(run, write_features, write_model):
    result = run([write_model(m) for m in ("v2", "gru", "lstm")], write_features())
    v2, gru, lstm = metrics_of(result).models
    cost = v2.multiplications_per_frame.audited
    assert v2.saving.gru == pytest.approx(gru.multiplications_per_frame.audited / cost)
    assert v2.saving.lstm == pytest.approx(lstm.multiplications_per_frame.audited / cost)
    assert gru.saving.gru == pytest.approx(1.0)
    recurrent = {m.model: m.parameters.recurrent_layers for m in (v2, gru, lstm)}
    assert recurrent["v2"] < recurrent["gru"] < recurrent["lstm"]


def test_hypotheses_are_those_of_the_network_on_one_utterance_at_a_time(
    run, write_features, write_model
):
    location, features = write_model("v2"), write_features()
    rows = {
        r["utterance_id"]: r
        for r in table(run([location], features).location, "hypotheses.parquet")
    }
    recogniser = load_model(location)
    manifest = read_manifest(features, FeaturizeManifest)
    for row in iter_rows(features, manifest, ("clean-test",)):
        batch = collate([row], recogniser.manifest.cmvn)
        with torch.inference_mode():
            output = recogniser.network(batch.x_TBF, batch.lengths_B)
        (ids,) = greedy_ctc_labels(output.log_probs_TBO, batch.lengths_B)
        expected = [manifest.labels.symbols[i] for i in ids]
        stored = rows[row.utterance_id]
        assert stored["hypothesis"].split() == expected
        reference = [manifest.labels.symbols[i] for i in row.labels]
        assert stored["errors"] == kaldialign.edit_distance(reference, expected)["total"]


def test_batch_size_changes_nothing(run, write_features, write_model):
    location, features = write_model("v2"), write_features()
    one, many = (run([location], features, batch_size=size) for size in (1, 8))
    assert one.fingerprint != many.fingerprint
    for name in ("hypotheses.parquet", "multiplications.parquet"):
        assert table(one.location, name) == table(many.location, name)


def test_characters_give_cer_and_wer(run, write_features, write_model):
    features = write_features(CHARACTERS)
    for decoder in ("greedy", "viterbi", "prefix"):
        result = run([write_model("gru", CHARACTERS)], features, decoder=decoder)
        (model,) = metrics_of(result).models
        assert model.decoder == decoder
        assert model.error_rates.per is None
        rows = table(result.location, "hypotheses.parquet")
        words = sum(row["num_words"] for row in rows)
        assert model.error_rates.wer.value == sum(row["word_errors"] for row in rows) / words
        assert model.error_rates.cer.value > 0


def test_frame_models_are_searched_and_tuned(run, write_features, write_model):
    features = write_features(ALIGNED)
    location = write_model("v1", ALIGNED, objective="frame")
    fixed = ViterbiConfig(tune_on_dev=False)
    plain = run([location], features, viterbi=fixed)
    tuned = run([location], features)
    (before,), (after,) = metrics_of(plain).models, metrics_of(tuned).models
    assert before.decoder == after.decoder == "viterbi"
    assert before.viterbi == fixed
    assert after.viterbi.tune_on_dev
    folded = {row["reference"] for row in table(plain.location, "hypotheses.parquet")}
    assert set(" ".join(folded).split()) == {"sil", "aa"}
    # Tuning looks at dev alone: on dev itself it must not lose.
    on_dev = [
        metrics_of(run([location], features, split="dev", viterbi=viterbi)).models[0]
        for viterbi in (fixed, ViterbiConfig())
    ]
    assert on_dev[1].error_rates.per.value <= on_dev[0].error_rates.per.value
    assert on_dev[1].viterbi == after.viterbi


def test_running_again_does_nothing_and_force_does_it_again(run, write_features, write_model):
    location, features = write_model("v1"), write_features()
    seen = []
    first = run([location], features, progress=seen.append)
    second = run([location], features, progress=lambda _: pytest.fail("worked again"))
    assert (first.skipped, second.skipped) == (False, True)
    assert first.location == second.location
    before = {n: first.location.child(n).read_bytes() for n in ("metrics.json", "report.html")}
    forced = run([location], features, force=True)
    assert not forced.skipped
    assert forced.location.child("metrics.json").read_bytes() == before["metrics.json"]


def test_seeds_of_one_kind_are_told_apart_and_compared_by_their_mean(
    run, write_features, write_model
):
    features = write_features()
    first, second = write_model("v2", seed=1), write_model("v2", seed=2)
    result = run([first, write_model("gru"), second], features)
    metrics = metrics_of(result)
    assert [m.label for m in metrics.models] == ["v2-seed=1", "gru", "v2-seed=2"]
    v2, _ = metrics.settings
    assert (v2.setting, v2.seeds, v2.labels) == ("v2", (1, 2), ("v2-seed=1", "v2-seed=2"))
    one, dense, two = (m.error_rates.per.value for m in metrics.models)
    assert v2.per.mean == pytest.approx((one + two) / 2)
    (difference,) = metrics.differences
    assert (difference.model, difference.compared_with) == ("v2", "gru")
    assert difference.value == pytest.approx((one + two) / 2 - dense)
    assert difference.low <= difference.value <= difference.high
    files = read_manifest(result.location, EvaluateManifest).files
    assert [name for name in files if "raster" in name] == ["plots/spike_raster_v2_seed_1.png"]
    with pytest.raises(PipelineError, match="given twice"):
        run([first, first], features)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"num_features": 8}, "reads 8 features a frame, the feature set has 7"),
        ({"frame_shift_s": 0.01}, r"0.01 s apart.*0.03 s apart"),
        ({"labels": CHARACTERS}, "trained on 4 characters symbols"),
        (
            {
                "cmvn": CmvnStatistics(
                    mode="speaker", mean=(0.0,) * NUM_FEATURES, std=(1.0,) * NUM_FEATURES
                )
            },
            "normalised by speaker",
        ),
    ],
)
def test_a_model_for_other_features_is_refused(run, write_features, write_model, model, message):
    with pytest.raises(PipelineError, match=message):
        run([write_model("gru", **model)], write_features())


def test_a_model_trained_on_other_features_of_the_same_kind_is_welcome(
    run, write_features, write_model
):
    location = write_model("gru")
    one = run([location], write_features(name="one"))
    other = run([location], write_features(name="other", num_utterances=9))
    assert one.fingerprint != other.fingerprint
    assert metrics_of(other).models[0].num_utterances == 9


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"split": "tset"}, "use one of dev, test, train"),
        ({"subsets": ("clean-tset",)}, "it has clean-dev, clean-test, clean-train"),
        ({"search_of": "nowhere"}, "nowhere"),
    ],
)
def test_wrong_choices_name_the_remedy(run, write_features, write_model, config, message):
    with pytest.raises(PipelineError, match=message):
        run([write_model("gru")], write_features(), **config)


def test_no_models_and_missing_models_are_refused(run, write_features, tmp_path):
    with pytest.raises(PipelineError, match="no model to evaluate"):
        run([], write_features())
    with pytest.raises(PipelineError, match="no finished stage"):
        run([Location.of(tmp_path / "nowhere")], write_features())


def test_named_subsets_replace_the_split(run, write_features, write_model):
    result = run([write_model("gru")], write_features(), subsets=("clean-dev", "clean-train"))
    metrics = metrics_of(result)
    assert metrics.subsets == ("clean-dev", "clean-train")
    assert metrics.models[0].num_utterances == 22


def test_normalisation_is_the_models_unless_by_speaker(write_features, write_model):
    trained = read_manifest(write_model("gru"), TrainManifest)
    by_speaker = read_manifest(write_features(cmvn_mode="speaker"), FeaturizeManifest)
    assert choose_cmvn(trained, by_speaker) == trained.cmvn
    speaker_model = trained.model_copy(
        update={"cmvn": trained.cmvn.model_copy(update={"mode": "speaker"})}
    )
    chosen = choose_cmvn(speaker_model, by_speaker)
    assert chosen.mean == trained.cmvn.mean
    assert chosen.speaker_mean == by_speaker.cmvn.speaker_mean


def test_batches_keep_every_utterance_once_and_in_order(write_features):
    features = write_features()
    manifest = read_manifest(features, FeaturizeManifest)
    subsets = ("clean-dev", "clean-test")
    expected = [row.utterance_id for row in iter_rows(features, manifest, subsets)]
    batches = list(stream_batches(features, manifest, subsets, 4))
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 2]
    assert [row.utterance_id for batch in batches for row in batch] == expected
    thinned = stream_batches(features, manifest, subsets, 4, every=3)
    assert [row.utterance_id for batch in thinned for row in batch] == expected[::3]


@pytest.mark.parametrize("weight", ["output.linear.weight", "layers.0.norm.bias"])
def test_a_diverged_model_is_named_not_scored(run, write_features, write_model, weight):
    # A spiking layer with NaN in its normalisation is silent, and its scores are finite.
    location = write_model("v2")
    file = location.child("weights.safetensors")
    tensors = load(file.read_bytes())
    tensors[weight][:1] = float("nan")
    data = save(tensors)
    file.write_bytes(data)
    manifest = read_manifest(location, TrainManifest)
    digest = hashlib.sha256(data).hexdigest()
    write_sealed(location, manifest.model_copy(update={"weights_sha256": digest}))
    with pytest.raises(PipelineError, match=f"{weight} is not finite"):
        run([location], write_features())


def test_an_interrupted_evaluation_leaves_no_result(run, write_features, write_model, tmp_path):
    location, features = write_model("v1"), write_features()

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([location], features, progress=stop)
    left = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert left == []
    assert not run([location], features).skipped


def test_metrics_json_is_strict_json_with_the_contracts_keys(run, write_features, write_model):
    location = write_model("v1", num_bits=1, threshold=0)
    result = run([location], write_features())
    text = result.location.child("metrics.json").read_bytes()
    parsed = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    (model,) = parsed["models"]
    assert parsed["schema_version"] == 1
    assert {
        "model",
        "num_utterances",
        "num_frames",
        "error_rates",
        "parameters",
        "spike_density",
        "multiplications_per_frame",
        "additions_per_frame",
        "saving",
    } <= set(model)
    assert set(model["error_rates"]) == {"per", "wer", "cer"}
    assert set(model["error_rates"]["per"]) == {"value", "low", "high"}
    assert model["error_rates"]["wer"] is None
    assert model["saving"] == {"gru": None, "lstm": None}
    assert model["multiplications_per_frame"]["audited"] == 0
    assert model["additions_per_frame"] > 0
    assert all(np.isfinite(v) for v in model["multiplications_per_frame"]["terms"].values())


def test_hostile_names_stay_text_in_the_report(run, write_features, write_model):
    hostile = "<script>alert(1)</script>\"'&|"
    features = write_features(CHARACTERS, hostile_id=hostile)
    result = run([write_model("gru", CHARACTERS)], features)
    page = result.location.child("report.html").read_bytes().decode()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    ids = {row["utterance_id"] for row in table(result.location, "hypotheses.parquet")}
    assert hostile in ids
