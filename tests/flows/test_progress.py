import logging

import pytest

from evaluation.manifest import EvaluateProgress
from flows.overview import Curve
from flows.progress import (
    StageProgress,
    TimeLeft,
    TrainingProgress,
    epoch_line,
)
from training.manifest import EpochMetrics, TrainProgress
from training.train_config import TrainConfig


class Recorder:
    """Stands where the bar and the artifact do."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self.words: list[str] = []
        self.epochs: list[tuple[str, int]] = []

    def add_epoch(self, training: str, curve: Curve) -> None:
        self.epochs.append((training, len(curve.metrics)))

    def update(self, share: float, note: str, details: str = "") -> None:
        self.shares.append(share)
        self.words.append(f"{note}|{details}")


def epoch(number: int) -> EpochMetrics:
    return EpochMetrics(
        epoch=number,
        train_loss=2.5,
        dev_loss=2.0,
        dev_error=0.25,
        learning_rate=1e-3,
        frames_per_s=12345.0,
        num_frames=10,
        num_utterances=1,
        seconds=1.0,
        spike_density=(0.5, 0.25),
    )


def at(number: int, step: int, num_steps: int, finished: int) -> TrainProgress:
    return TrainProgress(
        epoch=number,
        num_epochs=4,
        step=step,
        num_steps=num_steps,
        loss=2.5,
        epochs=tuple(epoch(n) for n in range(finished)),
    )


def test_an_epoch_in_one_line() -> None:
    line = epoch_line(epoch(2), 4)
    assert "epoch  3/4" in line
    assert "25.0%" in line
    assert line.endswith("spikes 50% 25%")
    assert len(f"{'':12} {line} 10%") <= 80, "three layers fit a terminal"


def test_training_never_goes_back_and_tells_each_epoch_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = Recorder()
    shown = TrainingProgress(TrainConfig(), recorder)  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO, logger="flows.progress"):
        for progress in (
            at(0, 1, 2, 0),
            at(0, 0, 0, 1),
            at(1, 1, 2, 1),
            at(1, 0, 0, 2),
            at(1, 0, 0, 2),  # a restarted worker tells it again
            at(3, 0, 0, 4),  # and one between was not seen
        ):
            shown(progress)
    assert recorder.shares == [0.125, 0.25, 0.375, 0.5, 0.5, 1.0]
    told = [record.getMessage().split("epoch")[1].split("/")[0] for record in caplog.records]
    assert [int(number) for number in told] == [1, 2, 3, 4]
    assert recorder.words[0] == "epoch 1/4  loss 2.500|"
    assert recorder.words[-1] == (
        "epoch 4/4  loss 2.500  dev error 25.0%"
        "|best 25.0% in epoch 1, spikes 50% 25%, 12,345 frames/s"
    )


def test_evaluation_counts_models_and_utterances() -> None:
    recorder = Recorder()
    for model, done in ((0, 5), (0, 10), (1, 5), (1, 10)):
        progress = EvaluateProgress(
            model="v2", model_number=model, num_models=2, num_done=done, num_utterances=10
        )
        StageProgress.show_evaluation(recorder, progress)  # type: ignore[arg-type]
    assert recorder.shares == [0.25, 0.5, 0.75, 1.0]


def time_left(*told: tuple[float, float]) -> list[str]:
    """What is said at each (seconds, share)."""
    now_s = 0.0
    left = TimeLeft(lambda: now_s)
    said = []
    for now_s, share in told:  # noqa: B007 - the clock reads it
        said.append(left(share))
    return said


def test_time_left_waits_for_evidence_and_then_follows_the_pace() -> None:
    assert time_left((0, 0.0), (1, 0.5), (10, 0.01), (10, 0.25), (20, 0.5), (40, 1.0)) == [
        "",
        "",
        "",
        "about 30 s left",
        "about 20 s left",
        "",
    ]
    assert time_left((0, 0.0), (600, 0.1))[-1] == "about 1.5 h left"
    assert time_left((0, 0.0), (60, 0.1))[-1] == "about 9 min left"


def test_time_left_of_a_resumed_stage_counts_what_it_saw_itself() -> None:
    assert time_left((0, 0.8), (10, 0.9))[-1] == "about 10 s left"


def test_finished_epochs_are_added_to_the_page_once_and_together() -> None:
    """A resumed run tells many at once, and a page with curves takes a while to draw."""
    recorder = Recorder()
    shown = TrainingProgress(TrainConfig(), recorder)  # type: ignore[arg-type]
    for progress in (at(1, 0, 0, 2), at(1, 1, 2, 2), at(2, 0, 0, 3)):
        shown(progress)
    assert recorder.epochs == [("v2", 2), ("v2", 3)]


def test_the_artifact_says_more_than_the_bar() -> None:
    bar, artifact = Recorder(), Recorder()
    shown = StageProgress("training v2", bar, artifact)  # type: ignore[arg-type]
    shown.update(0.5, "epoch 1/4  loss 2.5", "best 25%")
    assert bar.words == ["epoch 1/4  loss 2.5|"]
    assert artifact.words == ["epoch 1/4, loss 2.5, best 25%|"]
