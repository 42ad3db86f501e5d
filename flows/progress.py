"""Progress of the stages, told three ways at once: a bar, log lines, a Prefect artifact."""

import contextvars
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from evaluation.manifest import EvaluateProgress
from flows import terminal
from flows.artifacts import ProgressArtifact, artifact_key
from flows.overview import Curve, current_overview
from training.align.job import AlignProgress
from training.manifest import EpochMetrics, TrainProgress
from training.train_config import TrainConfig

_LOGGER = logging.getLogger(__name__)


FEATURIZING, ALIGNING, EVALUATING = "making features", "aligning", "evaluating"
"""Titles of stages while they run; a training's is this and what it is called."""
TRAINING = "training "

_MIN_EVIDENCE_S = 3.0
_MIN_EVIDENCE_SHARE = 0.02


class TimeLeft:
    """How long the rest takes, at the pace since this object first heard of the work.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, float] | None = None

    def __call__(self, share: float) -> str:
        """In words; empty at the end, and while there is too little to go by.

        Args:
            share: done, from 0 to 1; a resumed stage starts above 0.
        """
        now_s = self._clock()
        if self._first is None:
            self._first = (now_s, share)
        first_s, first_share = self._first
        elapsed_s, gained = now_s - first_s, share - first_share
        if share >= 1.0 or elapsed_s < _MIN_EVIDENCE_S or gained < _MIN_EVIDENCE_SHARE:
            return ""
        left_s = elapsed_s * (1.0 - share) / gained
        if left_s < 90:
            return f"about {max(1, round(left_s)):d} s left"
        minutes = round(left_s / 60)
        if minutes < 90:
            return f"about {minutes} min left"
        return f"about {left_s / 3600:.1f} h left"


class StageProgress:
    """A bar and an artifact that move together."""

    def __init__(self, title: str, bar: terminal.Bar, artifact: ProgressArtifact) -> None:
        self._bar = bar
        self._artifact = artifact
        self._time_left = TimeLeft()
        self._page = current_overview()
        self._line = None if self._page is None else self._page.begin(title)

    def starting(self, what: str) -> None:
        """Say what is waited for before the work begins."""
        note = f"starting {what}"
        self._bar.update(0.0, note)
        if self._page is not None and self._line is not None:
            self._page.update(self._line, 0.0, note)

    def update(self, share: float, note: str, details: str = "") -> None:
        """Move both.

        Args:
            share: done, from 0 to 1.
            note: where the stage is, in a few words, parted by two spaces.
            details: more of it, for the artifact, which has room.
        """
        self._bar.update(share, note)
        words = (*note.split("  "), details, self._time_left(share))
        said = ", ".join(part for part in words if part)
        self._artifact.update(share, said)
        if self._page is not None and self._line is not None:
            self._page.update(self._line, share, said)

    def fail(self) -> None:
        """Say on the page of the pipeline that the stage failed."""
        if self._page is not None and self._line is not None:
            self._page.fail(self._line)

    def show_alignment(self, progress: AlignProgress) -> None:
        """Show a state of an alignment."""
        share = progress.num_done / max(1, progress.num_all)
        self.update(share, f"{progress.step}: {progress.num_done}/{progress.num_all}")

    def show_evaluation(self, progress: EvaluateProgress) -> None:
        """Show a state of an evaluation."""
        total = progress.num_models * max(1, progress.num_utterances)
        done = progress.model_number * progress.num_utterances + progress.num_done
        note = f"{progress.model}: {progress.num_done}/{progress.num_utterances}"
        self.update(done / total, note)

    def add_epoch(self, training: str, curve: Curve) -> None:
        """Add a training's newest epoch to the page of the pipeline around it."""
        if self._page is not None:
            self._page.add_epoch(training, curve)


@contextmanager
def stage_progress(title: str, *key: str) -> Iterator[StageProgress]:
    """Progress of a stage for as long as the context lasts; needs a Prefect run around it.

    Args:
        title: what is done, for the bar.
        key: parts of the artifact's key.
    """
    artifact = ProgressArtifact(artifact_key(*key, "progress"), title)
    with terminal.bar(title) as bar:
        progress = StageProgress(title, bar, artifact)
        try:
            yield progress
        except BaseException:
            progress.fail()
            raise


def epoch_line(metrics: EpochMetrics, num_epochs: int) -> str:
    """One finished epoch in one line, which fits a terminal beside the training's title."""
    line = (
        f"epoch {metrics.epoch + 1:>2}/{num_epochs}  loss {metrics.train_loss:7.3f}  "
        f"dev error {metrics.dev_error:6.1%}"
    )
    if metrics.spike_density:
        line += "  spikes " + " ".join(f"{density:.0%}" for density in metrics.spike_density)
    return line


def training_title(config: TrainConfig) -> str:
    """What a training is called while it runs: its model, and its seed where that is not 0."""
    return config.model.spec.name + (f" seed {config.seed}" if config.seed else "")


class TrainingProgress:
    """Takes a training's progress and tells it; called from whatever thread watches."""

    def __init__(self, config: TrainConfig, shown: StageProgress) -> None:
        self._name = training_title(config)
        self._config = config
        self._shown = shown
        self._num_told = 0
        # Logging from a watching thread belongs to the run that started it.
        self._context = contextvars.copy_context()

    def __call__(self, progress: TrainProgress) -> None:
        """Show a state of the run; a repeated or restarted epoch is told once."""
        self._context.run(self._tell, progress)

    def _tell(self, progress: TrainProgress) -> None:
        for metrics in progress.epochs[self._num_told :]:
            _LOGGER.info("%-12s %s", self._name, epoch_line(metrics, progress.num_epochs))
        if len(progress.epochs) > self._num_told:
            # Once for all of them: a run that is resumed tells many, and each would be drawn.
            self._shown.add_epoch(self._name, Curve(self._config, progress.epochs))
        self._num_told = max(self._num_told, len(progress.epochs))
        within = progress.step / progress.num_steps if progress.num_steps else 1.0
        note = f"epoch {progress.epoch + 1}/{progress.num_epochs}  loss {progress.loss:.3f}"
        if progress.epochs:
            note += f"  dev error {progress.epochs[-1].dev_error:.1%}"
        share = (progress.epoch + within) / progress.num_epochs
        self._shown.update(share, note, _epoch_details(progress.epochs))


def _epoch_details(epochs: tuple[EpochMetrics, ...]) -> str:
    """What the last finished epoch adds to the note."""
    if not epochs:
        return ""
    last = epochs[-1]
    best = min(epochs, key=lambda metrics: metrics.dev_error)
    details = f"best {best.dev_error:.1%} in epoch {best.epoch + 1}"
    if last.spike_density:
        details += f", spikes {' '.join(f'{density:.0%}' for density in last.spike_density)}"
    return f"{details}, {last.frames_per_s:,.0f} frames/s"
