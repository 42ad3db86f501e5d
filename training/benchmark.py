"""``spikeline bench training``: steps per model through the real loop, and where the time goes.

All models train in turns on the same batches, read from Parquet shards as in a real run, in
one process with the same threads. A ratio is the median over rounds of the LSTM's step / ours.
"""

import platform
import statistics
import tempfile
import time
from functools import partial

import numpy as np
import torch
from pydantic import Field

from featurize.schema import (
    SCHEMA_VERSION,
    CmvnStatistics,
    FeatureRow,
    FeaturizeManifest,
    LabelInventory,
    SubsetInfo,
)
from featurize.shard_writer import pack_row, write_shard
from featurize.stage import Location, TypedConfig, software_versions, timestamp
from training.checkpoint import CheckpointStore
from training.data import GlobalStep, TrainingData
from training.loop import TrainingLoop
from training.models.build import build_network
from training.models.model_config import ModelConfig, ModelName
from training.recurrence_benchmark import measure_in_turns
from training.train_config import CurriculumStage, TrainConfig


class BenchTrainingConfig(TypedConfig):
    """What to measure."""

    models: tuple[ModelName, ...] = Field(
        ("conventional", "v1", "v2", "gru", "lstm"),
        description="Models; the LSTM is the yardstick.",
    )
    batch_size: int = Field(16, ge=1, description="Utterances per step.")
    num_frames: int = Field(200, ge=1, description="Frames per utterance.")
    num_features: int = Field(40, ge=1, description="Values per frame.")
    hidden_size: int = Field(550, ge=1, description="Neurons per layer.")
    num_symbols: int = Field(48, ge=2, description="Frame targets.")
    num_threads: int = Field(2, ge=1, description="Compute threads.")
    num_warmups: int = Field(2, ge=1, description="Unmeasured rounds.")
    num_steps: int = Field(10, ge=1, description="Measured rounds.")
    seed: int = Field(0, ge=0, description="Seed of features, weights and batches.")


class TrainingRate(TypedConfig):
    """One model's steps."""

    model: ModelName = Field(description="Which.")
    step_s: float = Field(description="Median time of a step: forward, backward, optimiser.")
    frames_per_s: float = Field(description="Frames of a batch / (step + reading it).")
    faster_than_lstm: float | None = Field(description="Median ratio of step times; None: no LSTM.")
    reading_share: float = Field(
        description="Reading a batch / a step; under 1 it hides behind the step before."
    )


class BenchTrainingResult(TypedConfig):
    """Everything the benchmark found."""

    config: BenchTrainingConfig = Field(description="What was measured.")
    rates: tuple[TrainingRate, ...] = Field(description="A row per model.")
    read_batch_s: float = Field(description="Median time of reading one batch from shards.")
    machine: str = Field(description="Processor and system.")
    versions: dict[str, str] = Field(description="Software.")
    measured_at: str = Field(description="When, UTC.")


def bench_training(config: BenchTrainingConfig) -> BenchTrainingResult:
    """Measure training steps of every model on random features in real shards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.num_threads)
    try:
        with tempfile.TemporaryDirectory(prefix="spikeline-bench-") as folder:
            features = Location.of(folder)
            manifest = write_features(features, config)
            data = TrainingData(features, manifest, _train_config(config, config.models[0]))
            step, read_batch_s = _read(data)
            return _measure(config, data, step, read_batch_s)
    finally:
        torch.set_num_threads(threads)


def _measure(
    config: BenchTrainingConfig, data: TrainingData, step: GlobalStep, read_batch_s: float
) -> BenchTrainingResult:
    loops = {name: _loop(config, name, data) for name in config.models}
    times = measure_in_turns(
        {name: partial(loop.train_step, 0, step) for name, loop in loops.items()},
        config.num_warmups,
        config.num_steps,
    )
    rates = []
    for name in config.models:
        median = statistics.median(times[name])
        lstm = times.get("lstm")
        ratio = None
        if lstm is not None:
            ratio = statistics.median(a / b for a, b in zip(lstm, times[name], strict=True))
        rates.append(
            TrainingRate(
                model=name,
                step_s=median,
                # Reading runs a batch ahead in its own thread, so the slower of the two counts.
                frames_per_s=step.num_frames / max(median, read_batch_s),
                faster_than_lstm=ratio,
                reading_share=read_batch_s / median,
            )
        )
    return BenchTrainingResult(
        config=config,
        rates=tuple(rates),
        read_batch_s=read_batch_s,
        machine=f"{platform.machine()}, {platform.system()} {platform.release()}",
        versions=software_versions("torch", "numba", "numpy", "pyarrow"),
        measured_at=timestamp(),
    )


def _train_config(config: BenchTrainingConfig, model: ModelName) -> TrainConfig:
    return TrainConfig(
        model=ModelConfig(model=model, hidden_size=config.hidden_size),
        objective="frame",
        curriculum=(CurriculumStage(num_epochs=1),),
        batch_size=config.batch_size,
        # One row group at most is kept, so that every batch is truly read.
        shuffle_window_rows=1,
        seed=config.seed,
    )


def _loop(config: BenchTrainingConfig, model: ModelName, data: TrainingData) -> TrainingLoop:
    torch.manual_seed(config.seed)
    training = _train_config(config, model)
    network = build_network(training.model, config.num_features, config.num_symbols).train()
    # Single steps write no checkpoint, so the store's place stays empty.
    nowhere = CheckpointStore(Location.of(tempfile.gettempdir()))
    return TrainingLoop(network, network, training, data, nowhere)


def _read(data: TrainingData) -> tuple[GlobalStep, float]:
    """One batch, and the median time of reading one."""
    times = []
    last: GlobalStep | None = None
    started = time.perf_counter()
    for step in data.train_steps(0):
        times.append(time.perf_counter() - started)
        last = step
        started = time.perf_counter()
    assert last is not None
    return last, statistics.median(times)


def write_features(features: Location, config: BenchTrainingConfig) -> FeaturizeManifest:
    """Write random features in shards, as the featurize stage does."""
    rng = np.random.default_rng(config.seed)
    shards, subsets = [], {}
    for subset, size in (("train", 8 * config.batch_size), ("dev", 1)):
        rows = [_random_row(f"{subset}-{i:04d}", subset, config, rng) for i in range(size)]
        packed = [pack_row(row, "float16") for row in rows]
        shards.append(write_shard(features, f"{subset}.parquet", subset, packed, 8))
        subsets[subset] = SubsetInfo(
            num_utterances=size, num_speakers=1, num_frames=size * config.num_frames, hours=0.0
        )
    symbols = tuple(str(number) for number in range(config.num_symbols))
    return FeaturizeManifest(
        stage="featurize",
        schema_version=SCHEMA_VERSION,
        fingerprint="benchmark",
        created_at=timestamp(),
        versions={},
        config={},
        corpus_digest="random",
        splits={"train": ("train",), "dev": ("dev",), "test": ("dev",)},
        sample_rate_hz=16000,
        frame_shift_s=0.01,
        num_features=config.num_features,
        labels=LabelInventory(kind="alignment", symbols=symbols, scored_as=symbols),
        cmvn=CmvnStatistics(
            mode="global",
            mean=(0.0,) * config.num_features,
            std=(1.0,) * config.num_features,
        ),
        subsets=subsets,
        shards=tuple(shards),
        reject_counts={},
        num_resampled=0,
    )


def _random_row(
    name: str, subset: str, config: BenchTrainingConfig, rng: np.random.Generator
) -> FeatureRow:
    shape = (config.num_frames, config.num_features)
    alignment = rng.integers(0, config.num_symbols, config.num_frames).astype(np.int32)
    return FeatureRow(
        utterance_id=name,
        speaker_id="random",
        chapter_id="random",
        subset=subset,
        text="",
        labels=alignment,
        num_samples=160 * config.num_frames,
        features=rng.normal(size=shape).astype(np.float32),
        alignment=alignment,
    )
