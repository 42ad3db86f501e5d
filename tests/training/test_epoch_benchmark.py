"""The epoch benchmark on the planted features, trained in this process."""

import pytest

from evaluation.benchmark_records import epoch_page
from training.epoch_benchmark import bench_epoch
from training.models.model_config import ModelConfig
from training.train_config import TrainConfig
from training.worker import train_worker
from training.worker_config import WorkerConfig


def fit(config, features, run, workers, on_progress):
    train_worker(config, features, run, workers, on_progress=on_progress)


def test_an_epoch_of_every_model_and_the_parts_of_its_steps(planted_features):
    trainings = tuple(
        TrainConfig(model=ModelConfig(model=model, hidden_size=16), objective="frame", batch_size=4)
        for model in ("v2", "lstm")
    )
    workers = WorkerConfig(in_process=True)
    result = bench_epoch(trainings, planted_features, workers, fit, num_profiled_steps=3)
    assert [row.model for row in result.times] == ["v2", "lstm"]
    assert result.num_frames > 0
    for row in result.times:
        assert 0 < row.epoch_s < row.whole_s
        assert list(row.parts) == ["reading", "forward", "loss", "backward", "optimizer", "rest"]
        assert sum(row.parts.values()) == pytest.approx(1.0)
        assert row.parts["forward"] > 0
        assert row.parts["backward"] > 0
    page = epoch_page(result, ["x", "bench", "epoch"])
    assert "spikeline bench epoch" in page
    assert "| lstm |" in page
