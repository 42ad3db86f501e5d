"""Metrics sent to an experiment tracker beside the results, where a configuration asks for it.

The tracker is a copy for looking at: results never depend on it, its configuration is part of no
fingerprint, and trouble with it is told once and never stops the work. It hears what the flows
hear (the progress of a stage, then its manifest), so it works the same for any number of
workers, and for results on a disk or on S3.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Protocol

from evaluation.metrics import EvaluationMetrics, ModelMetrics
from evaluation.plots import site_names
from featurize.stage import Location, TypedConfig
from flows.tracking_config import TrackingConfig
from training.manifest import EpochMetrics, TrainManifest, TrainProgress
from training.train_config import TrainConfig

_LOGGER = logging.getLogger(__name__)

Settings = Mapping[str, str | int | float | bool]


class TrackedRun(Protocol):
    """One run of a tracker."""

    def configuration(self, config: TypedConfig) -> None:
        """Add what is trained."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add points to curves."""

    def result(self, settings: Settings, values: Mapping[str, float]) -> None:
        """Add results and what tells the run apart from others."""

    def flush(self) -> None:
        """Make what was added visible."""

    def close(self, is_whole: bool) -> None:
        """Flush, and say whether the run is whole."""


class Tracker(Protocol):
    """Where runs are kept, by name."""

    def has(self, name: str) -> bool:
        """Whether a run is there, whole."""

    def run(self, name: str) -> TrackedRun:
        """A new run, in place of an older one of that name."""


def open_tracker(tracking: TrackingConfig, runs: Location) -> Tracker:
    """The configured tracker, which is not ``none``."""
    if tracking.tracker == "mlflow":
        from flows.mlflow_tracker import MlflowTracker, mlflow_uri

        return MlflowTracker(mlflow_uri(tracking.uri, runs))
    from flows.tensorboard_tracker import TensorBoardTracker

    return TensorBoardTracker(tracking.folder(runs))


class Harmless:
    """A context in which trouble is told, once in this object's life, and goes no further."""

    def __init__(self) -> None:
        self.gave_up = False

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Run a block; an exception in it ends the block."""
        try:
            yield
        except Exception as error:
            if not self.gave_up:
                _LOGGER.warning(
                    "metrics are no longer sent to the tracker (%s: %s); results are not affected",
                    type(error).__name__,
                    error,
                )
            self.gave_up = True


class TrackedTraining:
    """Takes a training's progress and tells the tracker every finished epoch once."""

    def __init__(
        self, tracking: TrackingConfig, config: TrainConfig, runs: Location, fingerprint: str
    ) -> None:
        self._is_on = tracking.tracker != "none"
        self._tracking, self._runs, self._config = tracking, runs, config
        self._name = f"training/{config.model.spec.name}-{fingerprint}"
        self._harmless = Harmless()
        self._run: TrackedRun | None = None
        self._num_told = 0

    @cached_property
    def _tracker(self) -> Tracker:
        return open_tracker(self._tracking, self._runs)

    def __call__(self, progress: TrainProgress) -> None:
        """Tell the epochs that have finished since the last call."""
        self._tell(progress.epochs)

    def finish(self, manifest: TrainManifest, skipped: bool) -> None:
        """Tell what is left; of a training that was found finished, only what is not there."""
        with self._harmless():
            if self._is_on and not (skipped and self._tracker.has(self._name)):
                self._tell(manifest.metrics)
            if self._run is not None:
                self._run.close(is_whole=not self._harmless.gave_up)

    def _tell(self, epochs: tuple[EpochMetrics, ...]) -> None:
        if not self._is_on or self._harmless.gave_up or len(epochs) <= self._num_told:
            return
        with self._harmless():
            if self._run is None:
                self._run = self._tracker.run(self._name)
                self._run.configuration(self._config)
            for epoch in epochs[self._num_told :]:
                self._run.scalars(epoch_scalars(epoch), epoch.epoch + 1)
            self._num_told = len(epochs)
            self._run.flush()


def epoch_scalars(epoch: EpochMetrics) -> dict[str, float]:
    """The curves of a training, by name."""
    sites = site_names(len(epoch.spike_density) - 1) if epoch.spike_density else []
    return {
        "loss/train": epoch.train_loss,
        "loss/dev": epoch.dev_loss,
        "error/dev": epoch.dev_error,
        "learning_rate": epoch.learning_rate,
        "frames_per_s": epoch.frames_per_s,
        "skipped_steps": epoch.num_skipped_steps,
        **{
            f"spike_density/{site.replace(' ', '_')}": density
            for site, density in zip(sites, epoch.spike_density, strict=True)
        },
    }


def track_evaluation(
    tracking: TrackingConfig, metrics: EvaluationMetrics, runs: Location, fingerprint: str
) -> None:
    """Tell the tracker the result of every model, as one run each, unless it is there."""
    if tracking.tracker == "none":
        return
    harmless = Harmless()
    with harmless():
        tracker = open_tracker(tracking, runs)
        for model in metrics.models:
            name = f"evaluation/{fingerprint}/{model.label}"
            if tracker.has(name):
                continue
            run = tracker.run(name)
            run.result(model_settings(model), model_scalars(model))
            run.close(is_whole=True)


def model_scalars(model: ModelMetrics) -> dict[str, float]:
    """A model's results, by name; what it does not have is left out."""
    rates = {f"error_rate/{name}": rate.value for name, rate in model.error_rates.known().items()}
    savings = {
        f"saving/{dense}": value
        for dense, value in model.saving.model_dump().items()
        if value is not None
    }
    counts = model.multiplications_per_frame
    return {
        **rates,
        "multiplications_per_frame/audited": counts.audited,
        "multiplications_per_frame/as_published": counts.as_published,
        "additions_per_frame": model.additions_per_frame,
        **savings,
    }


def model_settings(model: ModelMetrics) -> Settings:
    """What tells models apart in the tracker's table."""
    return {
        "model": model.model,
        "num_layers": model.num_layers,
        "hidden_size": model.hidden_size,
        "num_bits": model.num_bits or 0,
        "num_epochs": model.num_epochs,
        "parameters": model.parameters.total,
        "decoder": model.decoder,
    }
