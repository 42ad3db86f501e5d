"""Finding the evaluation whose search a model takes."""

import logging

import pytest

from evaluation.chosen import evaluation_of, read_evaluation
from evaluation.config import EvaluateConfig
from evaluation.manifest import EvaluateManifest
from featurize.stage import PipelineError, read_manifest
from featurize.stage.manifest import write_sealed
from training.manifest import TrainManifest


def test_an_evaluation_that_cannot_be_read_is_named_where_no_other_is(write_model, caplog):
    run = write_model("gru")
    model = read_manifest(run, TrainManifest)
    evaluations = run.parent.parent.child("evaluation")
    with caplog.at_level(logging.WARNING):
        assert evaluation_of(run, model) is None
        assert not caplog.messages
        evaluations.child("old", "manifest.json").write_bytes(b'{"stage": "evaluation"}')
        assert evaluation_of(run, model) is None
    (said,) = caplog.messages
    assert said.startswith("1 evaluation beside")
    assert "is not a manifest this version reads" in said


def test_metrics_of_another_version_are_named(tmp_path, write_model):
    evaluation = write_model("gru").parent.parent.child("evaluation", "old")
    evaluation.child("metrics.json").write_bytes(b'{"subsets": 3}')
    manifest = EvaluateManifest(
        stage="evaluation", schema_version=1, fingerprint="old", upstream={}, created_at="",
        versions={}, config=EvaluateConfig(), features="", models=(), subsets=(),
        num_utterances=1, files=("metrics.json",),
    )  # fmt: skip
    write_sealed(evaluation, manifest)
    with pytest.raises(PipelineError, match=r"metrics\.json is of another version \("):
        read_evaluation(evaluation)
