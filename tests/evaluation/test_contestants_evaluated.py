"""The contestants through a whole evaluation: scored, counted, recorded, and in the table."""

import pyarrow.parquet as pq
import pytest

from evaluation.comparison import comparison_table, workload_table
from evaluation.config import EvaluateConfig
from evaluation.evaluate import evaluate
from evaluation.metrics import EvaluationMetrics
from featurize.stage import Location

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
