"""The tracker's files, read back by TensorBoard itself."""

import logging
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from featurize.stage import Location
from flows.tracking import TrackedTraining, track_evaluation
from flows.tracking_config import TrackingConfig
from tests.harness.tracked import Manifest, evaluation_metrics, progress
from training.train_config import TrainConfig

TENSORBOARD = TrackingConfig(tracker="tensorboard")


def tracked(runs: Path, tracking: TrackingConfig = TENSORBOARD) -> TrackedTraining:
    return TrackedTraining(tracking, TrainConfig(), Location.of(runs), "f00d")


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder)).Reload()
    return [(point.step, point.value) for point in events.Scalars(name)]


def test_every_epoch_is_told_once_and_a_resumed_run_has_its_whole_history(tmp_path: Path) -> None:
    folder = tmp_path / "tensorboard" / "training" / "v2-f00d"
    first = tracked(tmp_path)
    for finished in (0, 1, 1, 2):
        first(progress(finished))
    assert curve(folder, "loss/train") == [(1, 2.0), (2, 1.0)]
    resumed = tracked(tmp_path)  # the first one's process was killed
    for finished in (2, 3):
        resumed(progress(finished))
    resumed.finish(Manifest(4), skipped=False)  # type: ignore[arg-type]
    steps, errors = zip(*curve(folder, "error/dev"), strict=True)
    assert steps == (1, 2, 3, 4)
    assert errors == pytest.approx((0.5, 0.25, 0.5 / 3, 0.125))
    assert curve(folder, "spike_density/layer_1")[0] == (1, 0.25)
    events = EventAccumulator(str(folder)).Reload()
    (text,) = events.Tensors("configuration/text_summary")
    assert b'"hidden_size": 550' in text.tensor_proto.string_val[0]


def test_a_finished_training_is_told_where_it_is_missing_and_left_where_it_is(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "tensorboard" / "training" / "v2-f00d"
    tracked(tmp_path).finish(Manifest(2), skipped=True)  # type: ignore[arg-type]
    assert [step for step, _ in curve(folder, "loss/dev")] == [1, 2]
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    tracked(tmp_path).finish(Manifest(2), skipped=True)  # type: ignore[arg-type]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_without_a_tracker_nothing_is_written(tmp_path: Path) -> None:
    quiet = tracked(tmp_path, TrackingConfig())
    quiet(progress(2))
    quiet.finish(Manifest(4), skipped=False)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_trouble_is_told_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    tracking = TrackingConfig(tracker="tensorboard", directory=str(blocked))
    with caplog.at_level(logging.WARNING, logger="flows.tracking"):
        failing = tracked(tmp_path, tracking)
        for finished in (1, 2, 3):
            failing(progress(finished))
        failing.finish(Manifest(4), skipped=False)  # type: ignore[arg-type]
    (told,) = [record.getMessage() for record in caplog.records]
    assert "results are not affected" in told
    assert blocked.read_text() == "a file where a folder should be"


def test_an_evaluation_is_one_run_per_model(tmp_path: Path) -> None:
    metrics = evaluation_metrics()
    track_evaluation(TENSORBOARD, metrics, Location.of(tmp_path), "cafe")
    folder = tmp_path / "tensorboard" / "evaluation" / "cafe"
    assert sorted(path.name for path in folder.iterdir()) == ["gru", "v2"]
    assert curve(folder / "v2", "error_rate/per")[0] == (0, 0.25)
    assert curve(folder / "v2", "multiplications_per_frame/audited")[0] == (0, 1000.0)
    assert curve(folder / "gru", "saving/gru")[0] == (0, 5.0)
    plugins = EventAccumulator(str(folder / "v2")).Reload().summary_metadata
    assert "_hparams_/session_start_info" in plugins
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    track_evaluation(TENSORBOARD, metrics, Location.of(tmp_path), "cafe")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.integration
def test_on_s3_the_file_is_whole_after_every_epoch(s3_server, tmp_path: Path) -> None:
    tracking = TrackingConfig(tracker="tensorboard", directory=f"{s3_server.uri}/logs")
    training = tracked(tmp_path, tracking)
    folder = s3_server.folder / "logs" / "training" / "v2-f00d"
    training(progress(1))
    assert [step for step, _ in curve(folder, "loss/train")] == [1]
    training(progress(3))
    assert [step for step, _ in curve(folder, "loss/train")] == [1, 2, 3]
    training.finish(Manifest(4), skipped=False)  # type: ignore[arg-type]
    assert [step for step, _ in curve(folder, "loss/train")] == [1, 2, 3, 4]
    assert list(tmp_path.iterdir()) == []
