"""How long is an epoch of real training through Ray Train, and where does its time go?

``make bench-epoch FEATURES=runs/align/FP``. Every model of a recipe trains two epochs the way
``spikeline train`` does, checkpoints and dev split included; the second is reported, when
everything is compiled and warm. Where a step's time goes is then looked up in a process of its
own, on the first batches of the same epoch: reading is what the loop waits for a batch, the other
parts are those that ``training.loop`` names to PyTorch's profiler.
"""

import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from featurize.schema import FeaturizeManifest
from featurize.stage import Location, PipelineError, read_manifest
from flows.overrides import apply_overrides
from flows.recipes import recipe_named
from tests.benchmarks.harness import RecordOption, SmallOption, markdown, publish
from tests.harness import training_process
from training.checkpoint import CheckpointStore
from training.data import TrainingData
from training.loop import TrainingLoop
from training.models.build import build_network, num_outputs
from training.ray_trainer import fit
from training.train_config import CurriculumStage, TrainConfig
from training.worker_config import WorkerConfig

# As the loop names them to the profiler.
STEP_PARTS = ("forward", "loss", "backward", "optimizer")

NUM_EPOCHS = 2


def two_epochs(config: TrainConfig) -> TrainConfig:
    """The training with the sequence length of its last stage, spiking from the start."""
    length = config.curriculum[-1].chunk_frames
    stage = CurriculumStage(num_epochs=NUM_EPOCHS, chunk_frames=length)
    return config.model_copy(update={"curriculum": (stage,), "quantization_schedule": None})


def time_epoch(config: TrainConfig, features: Location, workers: WorkerConfig) -> dict[str, Any]:
    """The row of one model."""
    with tempfile.TemporaryDirectory(prefix="spikeline-bench-") as folder:
        run = Location.of(folder)
        started = time.monotonic()
        fit(config, features, run, workers, None)
        whole_s = time.monotonic() - started
        state = CheckpointStore(run).newest()
    assert state is not None, "a finished training has a checkpoint"
    second = state.epochs[-1]
    return {
        "Model": config.model.model,
        "Epoch, s": second.seconds,
        "Frames a second": second.frames_per_s,
        "Start to end of two epochs, s": whole_s,
        "Spikes": " / ".join(f"{share:.0%}" for share in second.spike_density) or "-",
    }


def step_parts(config: TrainConfig, features: Location, num_steps: int) -> dict[str, Any]:
    """Share of a training step's time by part, after two steps to warm up."""
    torch.manual_seed(config.seed)
    manifest = read_manifest(features, FeaturizeManifest)
    outputs = num_outputs(len(manifest.labels.symbols), config.objective, manifest.states)
    network = build_network(config.model, manifest.num_features, outputs).train()
    data = TrainingData(features, manifest, config)
    # Single steps write no checkpoint, so the store's place stays empty.
    nowhere = CheckpointStore(Location.of(Path(tempfile.gettempdir())))
    loop = TrainingLoop(network, network, config, data, nowhere)
    steps = iter(data.train_steps(0))
    for step in islice(steps, 2):
        loop.train_part(0, step)
    reading_s = 0.0
    started = waited = time.perf_counter()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        started = waited = time.perf_counter()
        for step in islice(steps, num_steps):
            reading_s += time.perf_counter() - waited
            loop.train_part(0, step)
            waited = time.perf_counter()
        whole_s = waited - started
    if not whole_s:
        raise PipelineError(f"{features}: an epoch has no step after the two that warm up")
    parts = {"reading": reading_s} | dict.fromkeys(STEP_PARTS, 0.0)
    for event in profiler.key_averages():
        if event.key in STEP_PARTS:
            parts[event.key] += event.cpu_time_total / 1e6
    parts["rest"] = max(0.0, whole_s - sum(parts.values()))
    return {"Model": config.model.model} | {
        part: f"{seconds / whole_s:.0%}" for part, seconds in parts.items()
    }


def main(
    features: str,
    recipe: str = "mini-librispeech",
    overrides: Annotated[list[str] | None, typer.Option("--set")] = None,
    steps: int = 20,
    small: SmallOption = False,
    record: RecordOption = None,
) -> None:
    """An epoch of every model of a recipe on a finished feature set."""
    chosen = apply_overrides(recipe_named(recipe), overrides or [])
    trainings = [two_epochs(config) for config in chosen.models]
    workers = chosen.workers
    if small:
        trainings, steps = trainings[:1], 3
    place = Location.of(features)
    manifest = read_manifest(place, FeaturizeManifest)
    frames = sum(manifest.subsets[name].num_frames for name in manifest.splits["train"])
    first = trainings[0]
    epochs = [time_epoch(config, place, workers) for config in trainings]
    parts = [training_process.call(step_parts, config, place, steps) for config in trainings]
    publish(
        "An epoch of training",
        [
            f"{frames:,} frames of training speech, batches of {first.batch_size}, "
            f"{first.model.num_layers} layers of {first.model.hidden_size}, objective "
            f"{first.objective}; Ray Train, {workers.num_workers} workers, checkpoints and dev "
            "split included; the second epoch",
        ],
        {"Time": markdown(epochs), "Where a step's time goes": markdown(parts)},
        ("torch", "numba", "numpy", "pyarrow", "ray"),
        record,
    )


if __name__ == "__main__":
    typer.run(main)
