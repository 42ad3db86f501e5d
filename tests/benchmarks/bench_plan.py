"""What do a million utterances cost before the first training step, in memory and in time?

``make bench-plan``. The feature set is synthetic: one real shard of 256 utterances, 1.5 to 17 s
long, under as many names as it takes, and an index of all of them. So manifest, index, plan and
footers are as large as they would be, and the disk is not. Each size is
measured in processes of its own, for their memory: a driver plans the shards of a made-up corpus; a
training worker starts on the feature set and draws an epoch's batches, reading the first; and a
training of two Ray workers starts on it, Ray's own start included, and ends at its first step.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import typer

from featurize.corpora.entry import CorpusEntry
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.plan_shards import plan_shards
from featurize.schema import INDEX_NAME, FeaturizeManifest, SubsetInfo
from featurize.stage import Location, read_manifest
from featurize.stage.manifest import write_manifest
from featurize.utterance_index import index_shard, write_index
from tests.benchmarks.harness import (
    RecordOption,
    SmallOption,
    forget_peak,
    markdown,
    peak_mib,
    publish,
)
from tests.harness.random_features import write_random_features
from training.batch_plan import EpochPlan
from training.data import TrainingData
from training.manifest import TrainProgress
from training.train import train
from training.train_config import CurriculumStage, TrainConfig
from training.worker_config import WorkerConfig

SHARD_SIZE = 256
CONFIG = TrainConfig(
    objective="frame", curriculum=(CurriculumStage(num_epochs=1, chunk_frames=400),)
)


def resident_mib() -> float:
    forget_peak()
    return peak_mib()


def write_features(target: Location, num_utterances: int) -> None:
    frames = np.random.default_rng(0).integers(150, 1700, SHARD_SIZE).tolist()
    manifest = write_random_features(target, SHARD_SIZE, frames)
    train, dev = manifest.shards
    copies = -(-num_utterances // SHARD_SIZE)
    index = index_shard(target, train)
    shards = []
    for number in range(copies):
        shards.append(train.model_copy(update={"file": f"shard-{number:05d}.parquet"}))
        os.link(target.child(train.file).path, target.child(shards[-1].file).path)
    target.child(train.file).remove()
    write_index(target, [index] * copies + [index_shard(target, dev)])
    whole = SubsetInfo(
        num_utterances=copies * train.num_utterances,
        num_speakers=1,
        num_frames=copies * train.num_frames,
        hours=copies * train.num_frames * 0.01 / 3600,
    )
    update: dict[str, Any] = {
        "shards": (*shards, dev),
        "subsets": {**manifest.subsets, "train": whole},
    }
    write_manifest(target, manifest.model_copy(update=update))


def driver(num_utterances: int, _: Location) -> dict[str, float]:
    config = FeaturizeConfig(splits=SplitsConfig(train=("train",), dev=(), test=()))
    nowhere, before = Location.of("/nowhere"), resident_mib()
    started = time.perf_counter()
    entries = [
        CorpusEntry(
            utterance_id=f"{n // 400}-{n // 40}-{n:07d}",
            speaker_id=f"{n // 400}",
            chapter_id=f"{n // 40}",
            subset="train",
            text=f"{n} ".ljust(185, "A"),
            audio=f"{n // 400}/{n // 40}/{n:07d}.flac",
        )
        for n in range(num_utterances)
    ]
    shards = plan_shards(entries, config, nowhere, nowhere)
    assert len(shards) * config.utterances_per_shard >= num_utterances
    return {
        "Featurize's driver: plan, MiB": resident_mib() - before,
        "plan, s": time.perf_counter() - started,
    }


def worker(num_utterances: int, features: Location) -> dict[str, float]:
    before, started = resident_mib(), time.perf_counter()
    manifest = read_manifest(features, FeaturizeManifest)
    manifest_s, manifest_mib = time.perf_counter() - started, resident_mib() - before
    data = TrainingData(features, manifest, CONFIG)
    indexed_s, index_mib = time.perf_counter() - started, resident_mib() - before
    steps = data.train_steps(0)
    next(steps)
    first_s = time.perf_counter() - started
    steps.close()
    before_plan, started = resident_mib(), time.perf_counter()
    plan = EpochPlan(
        data.train.group_N,
        data.train.num_frames_N,
        batch_size=CONFIG.batch_size,
        max_frames=400,
        cut=True,
        window_rows=CONFIG.shuffle_window_rows,
        seed=0,
        epoch=0,
    )
    num_batches = sum(1 for _ in plan)
    assert num_batches == len(plan)
    return {
        "Training worker: manifest, MiB": manifest_mib,
        "and index, MiB": index_mib - manifest_mib,
        "drawing an epoch, peak, MiB": peak_mib() - before_plan,
        "manifest, s": manifest_s,
        "and index, s": indexed_s - manifest_s,
        "to the first batch, s": first_s,
        "drawing an epoch, s": time.perf_counter() - started,
    }


def training(num_utterances: int, features: Location) -> dict[str, float]:
    """From the call of a training to the first step that it reports."""
    started, first_s = time.perf_counter(), []

    def after_a_step(progress: TrainProgress) -> None:
        if progress.step and not first_s:
            first_s.append(time.perf_counter() - started)
            os.kill(os.getpid(), signal.SIGINT)

    runs = Location.of(features.path).child("runs")
    with suppress(KeyboardInterrupt):
        train(CONFIG, features, runs, WorkerConfig(num_workers=2), on_progress=after_a_step)
    return {"Training through Ray: to the first step, s": first_s[0]}


def main(
    sizes: str = "100000,1000000",
    part: str = "",
    features: Path | None = None,
    small: SmallOption = False,
    record: RecordOption = None,
) -> None:
    """Memory and time before the first step, at several numbers of utterances."""
    if part:
        measured = {"driver": driver, "worker": worker, "training": training}[part]
        place = Location.of(features or Path())
        sys.stdout.write(json.dumps(measured(int(sizes), place)))
        return
    rows = []
    for size in [2000, 4000] if small else [int(size) for size in sizes.split(",")]:
        with tempfile.TemporaryDirectory(prefix="spikeline-bench-") as folder:
            write_features(Location.of(folder), size)
            row: dict[str, Any] = {"Utterances": size}
            for name in ("driver", "worker", "training"):
                command = [sys.executable, "-m", "tests.benchmarks.bench_plan", "--part", name]
                command += ["--sizes", str(size), "--features", folder]
                ended = subprocess.run(command, check=True, capture_output=True, text=True)
                row |= json.loads(ended.stdout)
            row["Index file, MiB"] = Path(folder, INDEX_NAME).stat().st_size / 2**20
        rows.append(row)
    names = [name for name in rows[0] if name != "Utterances"]
    columns = {f"{row['Utterances']:,} utterances": row for row in rows}
    per_utterance = {
        name: 2**20
        * (rows[-1][name] - rows[0][name])
        / (rows[-1]["Utterances"] - rows[0]["Utterances"])
        for name in names
        if name.endswith("MiB")
    }
    table = [
        {
            "Piece": name,
            **{title: row[name] for title, row in columns.items()},
            "Bytes an utterance": per_utterance.get(name, ""),
        }
        for name in names
    ]
    publish(
        "A million utterances before the first step",
        [f"shards of {SHARD_SIZE}, batches of {CONFIG.batch_size}, sequences of 400 frames"],
        {"Memory and time": markdown(table)},
        ("numpy", "pyarrow", "pydantic"),
        record,
    )


if __name__ == "__main__":
    typer.run(main)
