"""Finding the evaluation whose search a model takes."""

import logging

import pytest

from evaluation.chosen import evaluation_of, read_evaluation
from evaluation.config import EvaluateConfig, WordSearchConfig
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


def written(place, config, model, created_at, **changes):
    """An evaluation's manifest, as far as a choice among several needs it."""
    changes = {"has_dev": True} | changes
    manifest = EvaluateManifest(
        stage="evaluation", schema_version=1, fingerprint=place.name,
        upstream={"v2": model.fingerprint}, created_at=created_at, versions={}, config=config,
        features="", models=(), subsets=(), num_utterances=1, files=(), **changes,
    )  # fmt: skip
    write_sealed(place, manifest)


def test_the_newest_that_chose_on_dev_counts_and_of_whole_weights_before_rounded(write_model):
    run = write_model("v2")
    model = read_manifest(run, TrainManifest)
    evaluations = run.parent.parent.child("evaluation")
    words = WordSearchConfig()
    written(evaluations.child("rounded"), EvaluateConfig(words=words, weight_bits=8), model, "3")
    assert evaluation_of(run, model).name == "rounded"
    written(evaluations.child("old"), EvaluateConfig(words=words), model, "1")
    assert evaluation_of(run, model).name == "old"
    written(evaluations.child("new"), EvaluateConfig(words=words), model, "2")
    written(evaluations.child("newest"), EvaluateConfig(), model, "4")
    # of an earlier version, which does not say whether it could choose
    written(evaluations.child("unsure"), EvaluateConfig(words=words), model, "6", has_dev=None)
    # of features without a dev split, which chose nothing
    config = EvaluateConfig(words=words)
    written(evaluations.child("elsewhere"), config, model, "5", has_dev=False)
    assert evaluation_of(run, model).name == "new"


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
