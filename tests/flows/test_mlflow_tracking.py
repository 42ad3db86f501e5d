"""MLflow's store, read back by MLflow itself."""

import logging
import shutil
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from featurize.stage import Location
from flows.tracking import TrackedTraining, track_evaluation
from flows.tracking_config import TrackingConfig
from tests.harness.tracked import Manifest, evaluation_metrics, progress
from training.train_config import TrainConfig

MLFLOW = TrackingConfig(tracker="mlflow")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database, which MLflow takes seconds to make."""
    database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{database}").search_experiments()
    return database


def tracked(runs: Path, tracking: TrackingConfig = MLFLOW) -> TrackedTraining:
    return TrackedTraining(tracking, TrainConfig(), Location.of(runs), "f00d")


class Store:
    """What a database holds."""

    def __init__(self, database: Path) -> None:
        self.client = MlflowClient(f"sqlite:///{database}")

    def runs(self) -> list:
        experiment = self.client.get_experiment_by_name("spikeline")
        found = self.client.search_runs([experiment.experiment_id])
        return sorted(found, key=lambda run: run.info.run_name)

    def curve(self, run, name: str) -> list[tuple[int, float]]:
        history = self.client.get_metric_history(run.info.run_id, name)
        return sorted((point.step, point.value) for point in history)


def test_every_epoch_is_told_once_and_a_resumed_run_has_its_whole_history(tmp_path: Path) -> None:
    store, first = Store(tmp_path / "runs" / "mlflow.db"), tracked(tmp_path / "runs")
    for finished in (0, 1, 1, 2):
        first(progress(finished))
    (run,) = store.runs()
    assert run.info.status == "RUNNING"
    assert store.curve(run, "loss/train") == [(1, 2.0), (2, 1.0)]
    resumed = tracked(tmp_path / "runs")  # the first one's process was killed
    for finished in (2, 3):
        resumed(progress(finished))
    resumed.finish(Manifest(4), skipped=False)  # type: ignore[arg-type]
    (run,) = store.runs()
    assert (run.info.run_name, run.info.status) == ("training/v2-f00d", "FINISHED")
    assert [step for step, _ in store.curve(run, "error/dev")] == [1, 2, 3, 4]
    assert store.curve(run, "spike_density/layer_1")[0] == (1, 0.25)
    assert run.data.params["model.hidden_size"] == "550"
    assert run.data.params["optimizer.learning_rate"] == "0.001"
    assert list(Path().iterdir()) == []  # nothing in the working folder


def test_a_finished_training_is_told_where_it_is_missing_and_left_where_it_is(
    tmp_path: Path, empty: Path
) -> None:
    shutil.copy(empty, tmp_path / "mlflow.db")
    store = Store(tmp_path / "mlflow.db")
    for _ in range(2):
        tracked(tmp_path).finish(Manifest(2), skipped=True)  # type: ignore[arg-type]
    (run,) = store.runs()
    assert [step for step, _ in store.curve(run, "loss/dev")] == [1, 2]
    first = run.info.run_id
    tracked(tmp_path).finish(Manifest(3), skipped=False)  # type: ignore[arg-type]
    (run,) = store.runs()  # trained again: in place of the old one
    assert run.info.run_id != first
    assert len(store.curve(run, "loss/dev")) == 3


def test_an_evaluation_is_one_run_per_model(tmp_path: Path, empty: Path) -> None:
    shutil.copy(empty, tmp_path / "elsewhere.db")
    store = Store(tmp_path / "elsewhere.db")
    tracking = TrackingConfig(tracker="mlflow", uri=f"sqlite:///{tmp_path}/elsewhere.db")
    for _ in range(2):
        track_evaluation(tracking, evaluation_metrics(), Location.of(tmp_path / "runs"), "cafe")
    gru, v2 = store.runs()
    assert v2.info.run_name == "evaluation/cafe/v2"
    assert v2.data.metrics["error_rate/per"] == 0.25
    assert v2.data.metrics["multiplications_per_frame/audited"] == 1000.0
    assert v2.data.params["num_bits"] == "6"
    assert gru.data.metrics["saving/gru"] == 5.0
    assert not (tmp_path / "runs").exists()


def test_the_environment_names_the_store(
    tmp_path: Path, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty, tmp_path / "own.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/own.db")
    tracked(tmp_path / "runs").finish(Manifest(1), skipped=False)  # type: ignore[arg-type]
    assert len(Store(tmp_path / "own.db").runs()) == 1


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ("s3://bucket/runs", "name a server or a local one by tracking.uri"),
        ("runs", "needs the packages of the tracking extra"),
    ],
)
def test_trouble_is_one_line_and_stops_nothing(
    runs: str, said: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with caplog.at_level(logging.WARNING, logger="flows.tracking"):
        failing = TrackedTraining(MLFLOW, TrainConfig(), Location.of(runs), "f00d")
        for finished in (1, 2):
            failing(progress(finished))
        failing.finish(Manifest(2), skipped=False)  # type: ignore[arg-type]
    (told,) = [record.getMessage() for record in caplog.records]
    assert said in told
    assert "results are not affected" in told
