"""One page on a pipeline's own run: how far its stages are, and at the end what came out.

Prefect shows a run's artifacts in no order of ours, so everything stands on one, which grows while
the stages run.
"""

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple

from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.actions import ArtifactUpdate

from evaluation.comparison import escape_markdown
from evaluation.learning_curves import draw_learning_curves
from flows.artifacts import LiveArtifact
from flows.pictures import picture
from training.manifest import EpochMetrics
from training.train_config import TrainConfig

_UPDATE_INTERVAL_S = 2.0
_DRAW_INTERVAL_S = 5.0
"""Drawing takes a core most of a second: epochs may be shorter, and training needs the core."""
_BAR_CELLS = 20


class Curve(NamedTuple):
    """A training as far as it is."""

    config: TrainConfig
    metrics: tuple[EpochMetrics, ...]


@dataclass
class Stage:
    """A line of the page."""

    title: str
    share: float | None = None  # done, from 0 to 1; None before it begins
    note: str = ""  # where it is, in a few words
    has_failed: bool = False  # until it is tried again

    def row(self) -> str:
        """The line as a row of a markdown table."""
        if self.has_failed:
            state = "failed"
        elif self.share is None:
            state = "waiting"
        elif self.share == 0.0:
            state = "starting"
        elif self.share >= 1.0:
            state = "done"
        else:
            filled = round(_BAR_CELLS * self.share)
            state = f"{'█' * filled}{'░' * (_BAR_CELLS - filled)} {self.share:.0%}"
        return f"| {escape_markdown(self.title)} | {state} | {escape_markdown(self.note)} |"


class Overview:
    """The page of the run at work; safe to change from any thread.

    Args:
        heading: name of what the run does.
        explanation: what that is, in plain words.
        stages: titles of the stages to come, in order.
    """

    def __init__(self, heading: str, explanation: str, stages: Sequence[str]) -> None:
        self._heading = heading
        self._explanation = explanation
        self._stages = [Stage(title) for title in stages]
        self._curves: dict[str, Curve] = {}
        self._picture = ""
        self._num_drawn = 0
        self._last_drawn_s = -math.inf
        self._result = ""
        self._last_update_s = 0.0
        self._lock = threading.Lock()
        self._artifact = LiveArtifact(
            create_markdown_artifact(
                markdown=self.markdown(),
                key="overview",
                description="Progress of all stages, and the result",
            )
        )

    def begin(self, title: str) -> Stage:
        """The line of a stage that begins: the first of that title that waits or has failed."""
        for stage in self._stages:
            if stage.title == title and (stage.share is None or stage.has_failed):
                break
        else:
            stage = Stage(title)
            self._stages.append(stage)
        stage.share, stage.has_failed = 0.0, False
        self._publish(at_once=True)
        return stage

    def update(self, stage: Stage, share: float, note: str) -> None:
        """Move a stage's line."""
        stage.share, stage.note = share, note
        self._publish(at_once=not 0.0 < share < 1.0)

    def fail(self, stage: Stage) -> None:
        """Say that a stage failed; its line is taken up where it is tried again."""
        stage.has_failed = True
        self._publish(at_once=True)

    def add_epoch(self, training: str, curve: Curve) -> None:
        """Show a training as far as it is; two of one title are told apart by a number."""
        with self._lock:
            name, number = training, 1
            while name in self._curves and self._curves[name].config != curve.config:
                number += 1
                name = f"{training} ({number})"
            self._curves[name] = curve
        self._publish(at_once=True)

    def finish(self, result: str) -> None:
        """Put the result, as markdown, at the top."""
        self._result = result
        self._publish(at_once=True, is_last=True)

    def markdown(self) -> str:
        """The page."""
        parts = [f"# {escape_markdown(self._heading)}"]
        parts.append(self._result or escape_markdown(self._explanation))
        table = ["| Stage | Progress | |", "| --- | --- | --- |"]
        parts += ["## Stages", "\n".join([*table, *(stage.row() for stage in self._stages)])]
        if self._curves:
            parts += ["## Training, epoch by epoch", self._drawn()]
            for training, curve in self._curves.items():
                parts += [f"**{escape_markdown(training)}**", _epochs(curve)]
        return "\n\n".join(parts)

    def _drawn(self) -> str:
        """The learning curves; while stages run, some seconds old at most."""
        num_epochs = sum(len(curve.metrics) for curve in self._curves.values())
        now_s = time.monotonic()
        is_due = bool(self._result) or now_s - self._last_drawn_s >= _DRAW_INTERVAL_S
        if num_epochs != self._num_drawn and is_due:
            self._picture = picture(draw_learning_curves(self._curves).png)
            self._num_drawn, self._last_drawn_s = num_epochs, now_s
        return self._picture

    def _publish(self, at_once: bool, is_last: bool = False) -> None:
        with self._lock:
            now_s = time.monotonic()
            too_soon = now_s - self._last_update_s < _UPDATE_INTERVAL_S
            if at_once or not too_soon:
                self._last_update_s = now_s
                self._artifact.change(ArtifactUpdate(data=self.markdown()), is_last=is_last)


def _epochs(curve: Curve) -> str:
    """A training's epochs as a table, which fits the column that Prefect's page leaves."""
    rows = ["| Epoch | Loss | Dev error | Frames/s | Spikes |", "| --- | --- | --- | --- | --- |"]
    for metrics in curve.metrics:
        spikes = " ".join(f"{density:.0%}" for density in metrics.spike_density) or "dense"
        rows.append(
            f"| {metrics.epoch + 1}/{curve.config.num_epochs} | {metrics.train_loss:.3f} "
            f"| {metrics.dev_error:.1%} | {metrics.frames_per_s:,.0f} | {spikes} |"
        )
    return "\n".join(rows)


_current: ContextVar[Overview | None] = ContextVar("overview", default=None)


def current_overview() -> Overview | None:
    """The page of the pipeline around this call, if there is one."""
    return _current.get()


@contextmanager
def overview(heading: str, explanation: str, stages: Sequence[str]) -> Iterator[Overview]:
    """A page on the run at work, which the stages within the context find and fill."""
    page = Overview(heading, explanation, stages)
    token = _current.set(page)
    try:
        yield page
    finally:
        _current.reset(token)


def locations_markdown(locations: Mapping[str, tuple[str, bool]]) -> str:
    """Where each stage's result is.

    Args:
        locations: stage to its address and whether it stood there already.
    """
    rows = ["| Result | | Address |", "| --- | --- | --- |"]
    for stage, (address, skipped) in locations.items():
        done = "found finished" if skipped else "made in this run"
        rows.append(f"| {escape_markdown(stage)} | {done} | `{address}` |")
    return "\n".join(["## Where the results are", "", *rows])
