"""``spikeline bench epoch``: an epoch of real training, and where its time goes.

Every model trains two epochs the way ``spikeline train`` does, Ray Train, checkpoints and dev
split included; the second is measured, when everything is compiled and warm. Where the time of a
step goes is then looked up in this process, on the first batches of the same epoch: reading is
what the loop waits for a batch, the other parts are those that ``training.loop`` names to the
profiler.
"""

import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch
from pydantic import Field

from featurize.schema import FeaturizeManifest
from featurize.stage import Location, TypedConfig, read_manifest, software_versions, timestamp
from training.checkpoint import CheckpointStore, num_outputs
from training.data import TrainingData
from training.loop import STEP_PARTS, ProgressCallback, TrainingLoop
from training.manifest import EpochMetrics
from training.models.build import build_network
from training.models.model_config import ModelName
from training.train_config import CurriculumStage, TrainConfig
from training.worker_config import WorkerConfig

logger = logging.getLogger(__name__)

NUM_EPOCHS = 2

Fit = Callable[[TrainConfig, Location, Location, WorkerConfig, ProgressCallback | None], None]


class EpochTime(TypedConfig):
    """One model's epoch.

    Attributes:
        parts: share of a step's time by part, reading first; they add up to 1.
    """

    model: ModelName = Field(description="Which.")
    epoch_s: float = Field(description="The second epoch, dev split included.")
    frames_per_s: float = Field(description="Of its training steps.")
    whole_s: float = Field(description="Both epochs and everything around them.")
    spike_density: tuple[float, ...] = Field(description="On dev, after it.")
    parts: dict[str, float] = Field(description="Part of a step to its share of the time.")


class EpochBenchmark(TypedConfig):
    """Everything the benchmark found."""

    trainings: tuple[TrainConfig, ...] = Field(description="What was trained, two epochs each.")
    num_frames: int = Field(description="Frames of an epoch.")
    times: tuple[EpochTime, ...] = Field(description="A row per model.")
    versions: dict[str, str] = Field(description="Software.")
    measured_at: str = Field(description="When, UTC.")


def bench_epoch(
    trainings: tuple[TrainConfig, ...],
    features: Location,
    workers: WorkerConfig,
    fit: Fit,
    num_profiled_steps: int = 20,
) -> EpochBenchmark:
    """Measure an epoch of every configuration.

    Args:
        trainings: what to train; the last stage of each curriculum gives the sequence length.
        features: a finished feature set.
        workers: how many workers, where.
        fit: as ``training.ray_trainer.fit``.
        num_profiled_steps: batches that the parts of a step are measured on.
    """
    manifest = read_manifest(features, FeaturizeManifest)
    short = tuple(_two_epochs(config) for config in trainings)
    rows, num_frames = [], 0
    for config in short:
        name = config.model.model
        logger.info("training %s for %d epochs", name, NUM_EPOCHS)
        with tempfile.TemporaryDirectory(prefix="spikeline-bench-") as folder:
            run = Location.of(folder)
            started = time.monotonic()
            fit(config, features, run, workers, None)
            whole_s = time.monotonic() - started
            state = CheckpointStore(run).newest()
            assert state is not None
            metrics: EpochMetrics = state.epochs[-1]
        logger.info("looking where the time of a step of %s goes", name)
        rows.append(
            EpochTime(
                model=name,
                epoch_s=metrics.seconds,
                frames_per_s=metrics.frames_per_s,
                whole_s=whole_s,
                spike_density=metrics.spike_density,
                parts=step_parts(config, features, manifest, num_profiled_steps),
            )
        )
        num_frames = metrics.num_frames
    return EpochBenchmark(
        trainings=short,
        num_frames=num_frames,
        times=tuple(rows),
        versions=software_versions("torch", "numba", "numpy", "pyarrow", "ray"),
        measured_at=timestamp(),
    )


def _two_epochs(config: TrainConfig) -> TrainConfig:
    length = config.curriculum[-1].chunk_frames
    stage = CurriculumStage(num_epochs=NUM_EPOCHS, chunk_frames=length)
    return config.model_copy(update={"curriculum": (stage,), "quantization_schedule": None})


def step_parts(
    config: TrainConfig, features: Location, manifest: FeaturizeManifest, num_steps: int
) -> dict[str, float]:
    """Share of a training step's time by part, after two steps to warm up.

    Args:
        config: what to train.
        features: a finished feature set.
        manifest: its manifest.
        num_steps: steps measured.
    """
    torch.manual_seed(config.seed)
    outputs = num_outputs(len(manifest.labels.symbols), config.objective, manifest.states)
    network = build_network(config.model, manifest.num_features, outputs).train()
    nowhere = CheckpointStore(Location.of(Path(tempfile.gettempdir())))
    data = TrainingData(features, manifest, config)
    loop = TrainingLoop(network, network, config, data, nowhere)
    steps = iter(data.train_steps(0))
    for step in islice(steps, 2):
        loop.train_step(0, step)
    seconds = {"reading": 0.0, **dict.fromkeys(STEP_PARTS, 0.0)}
    whole_s = 0.0
    with _profiled(seconds):
        while num_steps > 0:
            started = time.perf_counter()
            read = next(steps, None)
            if read is None:
                break
            seconds["reading"] += time.perf_counter() - started
            loop.train_step(0, read)
            whole_s += time.perf_counter() - started
            num_steps -= 1
    seconds["rest"] = max(0.0, whole_s - sum(seconds.values()))
    total = math.fsum(seconds.values()) or 1.0
    return {name: value / total for name, value in seconds.items()}


@contextmanager
def _profiled(seconds: dict[str, float]) -> Iterator[None]:
    """Add up the parts of the steps within the context."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profiler:
        yield
    for event in profiler.key_averages():
        if event.key in STEP_PARTS:
            seconds[event.key] += event.cpu_time_total / 1e6
