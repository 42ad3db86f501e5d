"""Every stage with its results on a real S3-compatible store."""

import json

import pytest

from evaluation.config import EvaluateConfig
from evaluation.evaluate import evaluate
from featurize.featurize import featurize
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.stage import Location
from training.models.model_config import ModelConfig
from training.train import train
from training.train_config import CurriculumStage, OptimizerConfig, TrainConfig
from training.worker_config import WorkerConfig

pytestmark = pytest.mark.integration


def test_featurize_train_and_evaluate_on_s3(s3_server, synthetic_corpus):
    runs = Location.of(f"{s3_server.uri}/pipeline-runs")
    features_config = FeaturizeConfig(
        corpus="librispeech",
        splits=SplitsConfig(
            train=("train-synthetic",), dev=("dev-synthetic",), test=("test-synthetic",)
        ),
        labels="phones",
        stack=3,
        stride=3,
    )
    corpus = Location.of(synthetic_corpus / "librispeech")
    features = featurize(features_config, corpus, runs)
    train_config = TrainConfig(
        model=ModelConfig(model="v2", hidden_size=12),
        curriculum=(CurriculumStage(num_epochs=2),),
        batch_size=8,
        optimizer=OptimizerConfig(learning_rate=3e-3),
    )
    here = WorkerConfig(in_process=True, threads_per_worker=1)
    model = train(train_config, features.location, runs, here)
    evaluation = evaluate(EvaluateConfig(), [model.location], features.location, runs)
    metrics = json.loads(evaluation.location.child("metrics.json").read_bytes())
    assert metrics["models"][0]["num_utterances"] > 0
    assert all(stage.location.uri.startswith("s3://") for stage in (features, model, evaluation))

    assert featurize(features_config, corpus, runs).skipped
    assert train(train_config, features.location, runs, here).skipped
    evaluation.location.remove()
    again = evaluate(EvaluateConfig(), [model.location], features.location, runs)
    assert not again.skipped
    assert train(train_config, features.location, runs, here).skipped
