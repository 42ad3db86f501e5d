"""What does every stage cost as speech and workers grow?

``make bench-scaling``. The stages of a recipe run without Prefect on synthetic corpora of growing
size (or on one real corpus, ``--corpus``); featurize and train also on several workers at the
largest size. Align and evaluate are one process. Of featurize the making of shards counts, without
the start of processes: shards are made several times over, and a pass more is what counts. Of
training an epoch's steps count: the median of the epochs after the first, the dev split left out.

What this comes to for larger corpora and clusters is arithmetic, in ``SCALING.md``.
"""

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import typer

from evaluation.evaluate import evaluate
from featurize.corpora.synthetic import SyntheticConfig, synthesize_corpus
from featurize.featurize import featurize, plan_featurize
from featurize.featurize_config import SplitsConfig
from featurize.make_shard import make_shard
from featurize.schema import FeaturizeManifest
from featurize.stage import FanOut, Location, read_manifest, run_fan_out
from featurize.stage.fanout import available_cores
from flows.recipes import Recipe, recipe_named
from tests.benchmarks.harness import (
    RecordOption,
    SmallOption,
    forget_peak,
    markdown,
    peak_mib,
    publish,
    times_in_turns,
)
from tests.harness import training_process
from tests.harness.processes import descendants
from training.align.align import align
from training.checkpoint import CheckpointStore
from training.data import TrainingData
from training.loop import TrainingLoop
from training.manifest import TrainManifest
from training.models.build import build_network, num_outputs
from training.train import train
from training.train_config import CurriculumStage, TrainConfig
from training.worker_config import WorkerConfig

SYNTHETIC = SplitsConfig(
    train=("train-synthetic",), dev=("dev-synthetic",), test=("test-synthetic",)
)
# On the command line of a training worker, and of a process pool's.
WORKER_MARKS = ("RayTrainWorker", "spawn_main")


@dataclass
class Stretch:
    """Time and peaks of memory of a stretch of work."""

    seconds: float = 0.0
    driver_mib: float = 0.0
    worker_mib: float = 0.0
    started: float = field(default_factory=time.perf_counter)


@contextmanager
def measured() -> Iterator[Stretch]:
    """Fills in a stretch; a worker that lives for less than a second may be missed."""
    found, ended = Stretch(), threading.Event()
    forget_peak()

    def watch() -> None:
        while not ended.wait(1.0):
            workers = [pid for mark in WORKER_MARKS for pid in descendants(os.getpid(), mark)]
            found.worker_mib = max([found.worker_mib, *map(peak_mib, workers)])

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    found.started = time.perf_counter()
    try:
        yield found
    finally:
        found.seconds = time.perf_counter() - found.started
        ended.set()
        thread.join()
        found.driver_mib = peak_mib()


def hours_of(manifest: FeaturizeManifest, *splits: str) -> float:
    return sum(manifest.subsets[name].hours for s in splits for name in manifest.splits[s])


class Bench:
    """The stages of a recipe on corpora of several sizes."""

    def __init__(self, recipe: Recipe, model: str, folder: Location, epochs: int) -> None:
        self.featurize, self.align, self.evaluate = recipe.featurize, recipe.align, recipe.evaluate
        (self.train,) = [c for c in recipe.models if c.model.model == model]
        stage = CurriculumStage(
            num_epochs=epochs, chunk_frames=self.train.curriculum[-1].chunk_frames
        )
        self.train = self.train.model_copy(
            update={"curriculum": (stage,), "quantization_schedule": None}
        )
        self.runs = folder.child("runs")
        self.rows: list[dict[str, Any]] = []

    def note(self, stage: str, hours: float, seconds: float, found: Stretch, workers: int) -> None:
        self.rows.append(
            {
                "Stage": stage,
                "Speech, min": 60 * hours,
                "Workers": workers,
                "Time, s": seconds,
                "Seconds for an hour of speech": seconds / hours,
                "Driver's peak, MiB": found.driver_mib,
                "Largest worker's peak, MiB": found.worker_mib or "-",
            }
        )

    def make_shards(self, corpus: Location, workers: int, passes: int) -> None:
        """Time a pass over a corpus, the start of processes left out."""
        plan = plan_featurize(self.featurize, corpus, self.runs)
        fan_out = FanOut(kind="sequential" if workers == 1 else "processes", num_workers=workers)

        def copies(number: int) -> list[Any]:
            return [
                replace(shard, location=self.runs.child("passes", str(again)))
                for again in range(number)
                for shard in plan.shards
            ]

        with measured() as found:
            results = run_fan_out(make_shard, copies(1), fan_out)
            once_s = time.perf_counter() - found.started
            run_fan_out(make_shard, copies(1 + passes), fan_out)
        # The difference can drown in noise: a pass then counts as a millisecond.
        seconds = max((found.seconds - 2 * once_s) / passes, 1e-3)
        hours = sum(r.num_samples for r in results) / self.featurize.sample_rate_hz / 3600
        self.note("featurize: shards", hours, seconds, found, workers)

    def features_of(self, corpus: Location) -> Location:
        """Featurize and align a corpus; the second is timed."""
        made = featurize(self.featurize, corpus, self.runs, fan_out=FanOut(kind="sequential"))
        if self.align is None:
            return made.location
        with measured() as found:
            aligned = align(self.align, made.location, self.runs).location
        manifest = read_manifest(aligned, FeaturizeManifest)
        self.note("align", hours_of(manifest, *manifest.splits), found.seconds, found, 1)
        return aligned

    def trained(self, features: Location, workers: int, in_process: bool) -> Location:
        settings = WorkerConfig(
            num_workers=workers,
            cpus_per_worker=min(1.0, available_cores() / workers),
            threads_per_worker=1,
            in_process=in_process,
        )
        runs = self.runs.child(f"workers-{workers}")
        with measured() as found:
            model = train(self.train, features, runs, settings).location
        epochs = read_manifest(model, TrainManifest).metrics
        steps_s = statistics.median(e.num_frames / e.frames_per_s for e in epochs[1:])
        hours = hours_of(read_manifest(features, FeaturizeManifest), "train")
        self.note("train: steps of an epoch", hours, steps_s, found, workers)
        around_s = found.seconds - sum(epoch.seconds for epoch in epochs)
        self.note("train: start and end", hours, around_s, found, workers)
        return model

    def evaluated(self, features: Location, model: Location) -> None:
        config = self.evaluate.model_copy(update={"words": None})
        with measured() as found:
            evaluate(config, [model], features, self.runs)
        hours = hours_of(read_manifest(features, FeaturizeManifest), "test")
        self.note("evaluate", hours, found.seconds, found, 1)


def step_times(
    config: TrainConfig, features: Location, batches: Sequence[int], num_frames: int
) -> list[dict[str, Any]]:
    """A training step on one thread, by its number of sequences."""
    manifest = read_manifest(features, FeaturizeManifest)
    outputs = num_outputs(len(manifest.labels.symbols), config.objective, manifest.states)
    stage = CurriculumStage(num_epochs=1, chunk_frames=num_frames)
    steps, full = {}, {}
    for size in batches:
        torch.manual_seed(0)
        own = config.model_copy(update={"curriculum": (stage,), "batch_size": size})
        network = build_network(own.model, manifest.num_features, outputs).train()
        data = TrainingData(features, manifest, own)
        # Single steps write no checkpoint, so the store's place stays empty.
        nowhere = CheckpointStore(Location.of(Path(tempfile.gettempdir())))
        loop = TrainingLoop(network, network, own, data, nowhere)
        step = max(islice(data.train_steps(0), 16), key=lambda step: step.num_frames)
        steps[str(size)] = lambda loop=loop, step=step: loop.train_part(0, step)
        full[str(size)] = size * num_frames / step.num_frames
    times = times_in_turns(steps, 5).median()
    seconds = {size: times[str(size)] * full[str(size)] for size in batches}
    largest = max(batches)
    rate = f"Rate of a sequence beside {largest}"
    alone = seconds[largest] / largest
    return [
        {"Sequences": size, "Step, s": spent, rate: f"{alone / (spent / size):.0%}"}
        for size, spent in seconds.items()
    ]


def main(  # noqa: PLR0913 - each is an option of the command
    recipe: str = "librispeech-100h-paper",
    model: str = "v2",
    corpus: Path | None = None,
    minutes: str = "4,8,16,30",
    workers: str = "1,2,4",
    epochs: int = 3,
    in_process: bool = False,
    small: SmallOption = False,
    record: RecordOption = None,
) -> None:
    """Every stage at growing sizes and numbers of workers."""
    chosen = recipe_named(recipe)
    sizes, counts = [float(m) for m in minutes.split(",")], [int(w) for w in workers.split(",")]
    batches, passes, frames = [4, 8, 16, 32, 64], 8, 100
    if small:
        sizes, counts, in_process, epochs = [1.0, 1.5], [1], True, 2
        batches, passes, frames = [1, 2], 1, 50
    if corpus is None:
        update = {"splits": SYNTHETIC, "utterances_per_shard": 8}
        chosen = chosen.model_copy(update={"featurize": chosen.featurize.model_copy(update=update)})
    with tempfile.TemporaryDirectory(prefix="spikeline-bench-") as folder:
        places = {} if corpus is None else {0.0: Location.of(corpus)}
        if corpus is None:
            for size in sizes:
                root = Path(folder) / f"corpus-{size:g}"
                synthesize_corpus(root, SyntheticConfig(minutes=size, num_speakers=20))
                places[size] = Location.of(root)
        bench = Bench(chosen, model, Location.of(folder), epochs)
        for place in places.values():
            bench.make_shards(place, 1, passes)
        largest = list(places.values())[-1]
        for count in counts[1:]:
            bench.make_shards(largest, count, passes)
        features = [bench.features_of(place) for place in places.values()]
        models = [bench.trained(one, 1, in_process) for one in features]
        for count in counts[1:]:
            bench.trained(features[-1], count, in_process)
        for one in features:
            bench.evaluated(one, models[-1])
        steps = training_process.call(step_times, bench.train, features[-1], batches, frames)
    publish(
        "What every stage costs",
        [
            f"recipe {recipe}, model {model}; "
            + (f"{corpus.name}" if corpus else f"synthetic speech, {minutes} minutes"),
            f"{available_cores()} cores; training workers have one compute thread each",
        ],
        {
            "Stages": markdown(bench.rows),
            f"A training step of sequences of {frames} frames, one thread": markdown(steps),
        },
        ("torch", "numpy", "pyarrow", "ray"),
        record,
    )


if __name__ == "__main__":
    typer.run(main)
