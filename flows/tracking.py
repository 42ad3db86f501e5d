"""Metrics sent to an experiment tracker beside the results, where a configuration asks for it.

The tracker is a copy for looking at: results never depend on it, its configuration is part of no
fingerprint, and trouble with it is told once and never stops the work. It hears what the flows
hear (the progress of a stage, then its manifest), so it works the same for any number of
workers, and for results on a disk or on S3.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evaluation.metrics import EvaluationMetrics, ModelMetrics
from evaluation.plots import site_names
from featurize.stage import Location, PipelineError
from flows.tracking_config import TrackingConfig
from training.manifest import EpochMetrics, TrainManifest, TrainProgress
from training.train_config import TrainConfig

_LOGGER = logging.getLogger(__name__)

Settings = Mapping[str, str | int | float | bool]


class TensorBoardRun:
    """One run's event file, with the run's whole history; an older one there is replaced.

    An event file grows, and an S3 object cannot: there the file grows in a temporary folder and is
    copied whole at every flush.

    Args:
        folder: of this run alone.
    """

    def __init__(self, folder: Location) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise PipelineError(
                "tracker=tensorboard needs the packages of the tracking extra: "
                "pip install -c constraints.txt -e '.[tracking]'"
            ) from error
        folder.remove()
        self._folder = folder
        self._temporary = None if folder.is_local else tempfile.TemporaryDirectory()
        self._local = Path(self._temporary.name if self._temporary else folder.path)
        self._writer: Any = SummaryWriter(str(self._local))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add points to curves."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def text(self, name: str, text: str) -> None:
        """Add a text, shown as it is written."""
        self._writer.add_text(name, "\n".join(f"    {line}" for line in text.splitlines()))

    def settings(self, settings: Settings, results: Mapping[str, float]) -> None:
        """Add a row to the table of settings and their results."""
        self._writer.add_hparams(dict(settings), dict(results), run_name=".")

    def flush(self) -> None:
        """Make what was added visible."""
        self._writer.flush()
        if self._temporary is not None:
            for file in sorted(self._local.iterdir()):
                self._folder.child(file.name).write_bytes(file.read_bytes())

    def close(self) -> None:
        """Flush and stop."""
        self._writer.close()
        self.flush()
        if self._temporary is not None:
            self._temporary.cleanup()


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
    """Takes a training's progress and tells the tracker every finished epoch once.

    Args:
        tracking: whether and where.
        config: what is trained.
        runs: root of all stages' results.
        fingerprint: the training's name.
    """

    def __init__(
        self, tracking: TrackingConfig, config: TrainConfig, runs: Location, fingerprint: str
    ) -> None:
        self._is_on = tracking.tracker != "none"
        self._config = config
        self._folder = tracking.folder(runs).child(
            "training", f"{config.model.spec.name}-{fingerprint}"
        )
        self._harmless = Harmless()
        self._run: TensorBoardRun | None = None
        self._num_told = 0

    def __call__(self, progress: TrainProgress) -> None:
        """Tell the epochs that have finished since the last call."""
        self._tell(progress.epochs)

    def finish(self, manifest: TrainManifest, skipped: bool) -> None:
        """Tell what is left; of a training that was found finished, only what is not there."""
        with self._harmless():
            if self._is_on and not (skipped and self._folder.is_dir()):
                self._tell(manifest.metrics)
            if self._run is not None:
                self._run.close()

    def _tell(self, epochs: tuple[EpochMetrics, ...]) -> None:
        if not self._is_on or self._harmless.gave_up or len(epochs) <= self._num_told:
            return
        with self._harmless():
            if self._run is None:
                self._run = TensorBoardRun(self._folder)
                self._run.text("configuration", self._config.model_dump_json(indent=1))
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
    """Tell the tracker the result of every model, as one run each, unless it is there.

    Args:
        tracking: whether and where.
        metrics: the evaluation.
        runs: root of all stages' results.
        fingerprint: the evaluation's name.
    """
    if tracking.tracker == "none":
        return
    harmless = Harmless()
    with harmless():
        folder = tracking.folder(runs).child("evaluation", fingerprint)
        for model in metrics.models:
            if folder.child(model.label).is_dir():
                continue
            run = TensorBoardRun(folder.child(model.label))
            results = model_scalars(model)
            run.scalars(results, 0)
            run.settings(model_settings(model), results)
            run.close()


def model_scalars(model: ModelMetrics) -> dict[str, float]:
    """A model's results, by name; what it does not have is left out."""
    rates = {
        f"error_rate/{name}": rate["value"]
        for name, rate in model.error_rates.model_dump().items()
        if rate is not None
    }
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
