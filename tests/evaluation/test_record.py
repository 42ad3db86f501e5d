import pytest

from evaluation.config import EvaluateConfig
from evaluation.evaluate import evaluate
from featurize.stage import Location, PipelineError
from tests.benchmarks.record import record_markdown


def test_a_record_holds_command_versions_tables_and_training(write_features, write_model, tmp_path):
    models = [write_model("v2"), write_model("gru")]
    result = evaluate(EvaluateConfig(), models, write_features(), Location.of(tmp_path / "runs"))
    command = ["spikeline", "pipeline", "--runs", "two words"]
    text = record_markdown(result.location, "Mini", command)
    assert text.startswith("# Mini\n\n```\nspikeline pipeline --runs 'two words'\n```\n")
    assert "torch " in text
    # By hand from the fixture: four epochs of 1.5 s, dev error 0.9 / 4 in the last.
    assert "| v2 | 4 | 4 | 22.5% | 0.1 | 1,000 |" in text
    assert "| gru | 4 | 4 | 22.5% | 0.1 | 1,000 |" in text
    assert "GRU/model" in text


def test_an_unfinished_evaluation_is_refused(tmp_path):
    with pytest.raises(PipelineError, match="no finished stage"):
        record_markdown(Location.of(tmp_path), "Mini", [])
