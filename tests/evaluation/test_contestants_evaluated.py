"""The contestants through a whole evaluation: scored, counted, recorded, and in the table."""

import pyarrow.parquet as pq
import pytest

from evaluation.comparison import comparison_table, workload_table
from evaluation.config import EvaluateConfig
from evaluation.evaluate import evaluate
from evaluation.metrics import EvaluationMetrics
from featurize.stage import Location, PipelineError

MODELS = ("ligru", "deltagru", "egru", "adlif", "radlif")


def test_what_is_recorded_is_what_is_audited(write_features, write_model, tmp_path):
    result = evaluate(
        EvaluateConfig(num_bootstrap=100),
        [write_model(model) for model in MODELS],
        write_features(num_utterances=5),
        Location.of(tmp_path / "runs"),
    )
    content = result.location.child("metrics.json").read_bytes()
    metrics = EvaluationMetrics.model_validate_json(content)
    assert [model.model for model in metrics.models] == list(MODELS)
    assert [row["Model"] for row in comparison_table(metrics)] == list(MODELS)
    assert [row["Model"] for row in workload_table(metrics)] == list(MODELS)
    table = pq.read_table(result.location.child("multiplications.parquet").path).to_pylist()
    for model in metrics.models:
        rows = [row for row in table if row["model"] == model.label]
        of_matrices = [row for row in rows if row["term"] != "elementwise"]
        products = sum(row["multiplications"] for row in of_matrices)
        seconds = sum(row["seconds"] for row in rows if row["term"] == "elementwise")
        assert model.multiplications_per_frame.audited == products / model.num_frames
        assert model.workload.multiplications_per_s == pytest.approx(products / seconds)
        assert model.workload.effective_macs == products / model.num_frames
        additions = sum(row["additions"] for row in of_matrices)
        accumulated = model.workload.effective_macs + model.workload.effective_acs
        assert accumulated == pytest.approx(additions / model.num_frames)
        assert accumulated <= model.workload.dense_operations
        assert bool(model.spike_density) == (model.model != "ligru")
    binary = {model.model: model.workload.effective_acs for model in metrics.models}
    assert binary["egru"] == binary["deltagru"] == binary["ligru"] == 0


@pytest.mark.parametrize("model", ["gru", "ligru", "v3"])
def test_pruned_and_rounded_networks_are_counted_as_they_are(
    write_features, write_model, tmp_path, model
):
    whole, pruned = write_model(model), write_model(model, seed=1, weight_density=0.25)
    features, found = write_features(num_utterances=5), {}
    for name, run, bits in (("whole", whole, None), ("pruned", pruned, None), ("int8", whole, 8)):
        result = evaluate(
            EvaluateConfig(num_bootstrap=100, weight_bits=bits),
            [run],
            features,
            Location.of(tmp_path / "runs"),
        )
        content = result.location.child("metrics.json").read_bytes()
        (found[name],) = EvaluationMetrics.model_validate_json(content).models
    of_pruned = found["pruned"].workload
    assert of_pruned.connection_sparsity == pytest.approx(0.75, abs=0.01)
    if model != "v3":
        kept = 1 - of_pruned.connection_sparsity
        assert of_pruned.effective_macs == pytest.approx(kept * of_pruned.dense_operations)
        assert found["int8"].workload.effective_macs == found["whole"].workload.effective_macs
    assert 0 < of_pruned.effective_macs < 0.5 * of_pruned.dense_operations
    share = found["int8"].workload.footprint_bytes / found["whole"].workload.footprint_bytes
    assert 0.25 < share < 0.75
    fetched = found["int8"].workload
    assert fetched.weight_bytes_per_s == pytest.approx(
        (fetched.effective_macs + fetched.effective_acs) * fetched.execution_rate_hz
    )


def test_a_network_whose_matrices_are_not_known_is_not_rounded(
    write_features, write_model, tmp_path
):
    with pytest.raises(PipelineError, match="weight_bits=8: egru does not state its matrices"):
        evaluate(
            EvaluateConfig(num_bootstrap=100, weight_bits=8),
            [write_model("egru")],
            write_features(num_utterances=2),
            Location.of(tmp_path / "runs"),
        )
