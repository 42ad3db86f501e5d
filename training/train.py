"""The training stage: features in, a trained recogniser out."""

import logging
from collections.abc import Callable, Sequence

import pyarrow as pa
from torch import Tensor

from featurize.schema import FeaturizeManifest
from featurize.shard_labels import read_targets
from featurize.stage import (
    Location,
    PipelineError,
    StageResult,
    fingerprint,
    held_token,
    read_manifest,
    run_stage,
    software_versions,
    timestamp,
    write_table,
)
from training.checkpoint import CheckpointStore, save_tensors
from training.label_statistics import label_statistics
from training.loop import Observers
from training.manifest import (
    METRICS_NAME,
    TRAIN_SCHEMA_VERSION,
    EpochMetrics,
    TrainManifest,
    TrainProgress,
)
from training.models.build import build_network, num_outputs
from training.split_index import check_epochs, index_split, used_utterances
from training.train_config import TrainConfig
from training.worker import train_worker
from training.worker_config import WorkerConfig

logger = logging.getLogger(__name__)

STAGE = "training"
STAGE_VERSION = 3

WEIGHTS_NAME, STATISTICS_NAME = "weights.safetensors", "label_statistics.safetensors"

OnProgress = Callable[[TrainProgress], None]


def training_fingerprint(config: TrainConfig, features: FeaturizeManifest) -> str:
    """Name of the run: its configuration (less how it is computed) and its features."""
    return fingerprint(
        {"version": _version(config), "config": config, "features": features.fingerprint}
    )


def _version(config: TrainConfig) -> int:
    """Of this stage, for such a training: one that is redone has another name."""
    # Until 3 a network that is pruned as well paid a price for outputs as of all its weights.
    is_repriced = config.budget is not None and config.model.weight_density is not None
    return STAGE_VERSION + is_repriced


def train(
    config: TrainConfig,
    features: Location,
    runs: Location,
    workers: WorkerConfig,
    *,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> StageResult:
    """Train a recogniser at ``runs/training/<fingerprint>``, or find it trained.

    An interrupted run resumes from its newest complete checkpoint.

    Args:
        on_progress: called with the state of the run while it goes.

    Raises:
        PipelineError: when the features are unfinished or unfit, or training diverges.
    """
    manifest = read_manifest(features, FeaturizeManifest)
    name = training_fingerprint(config, manifest)
    run = runs.child(STAGE, name)

    if config.model.range_update == "timestep" and workers.num_workers > 1:
        raise PipelineError(
            "range_update=timestep follows the frames of one worker alone, and num_workers="
            f"{workers.num_workers}; train with one, or with range_update=step"
        )

    def work(location: Location) -> TrainManifest:
        used_utterances(features, manifest, config)  # said, or refused, before the workers start
        _run_workers(config, features, location, workers, on_progress)
        return _finish(config, features, manifest, location, name)

    return run_stage(run, name, work, force=force)


def _run_workers(
    config: TrainConfig,
    features: Location,
    run: Location,
    workers: WorkerConfig,
    on_progress: OnProgress | None,
) -> None:
    if not workers.in_process:
        # Ray takes seconds to import, and nothing else here needs it.
        from training.ray_trainer import fit

        fit(config, features, run, workers, on_progress)
        return
    if workers.num_workers != 1:
        raise PipelineError(
            f"in_process training has one worker, not num_workers={workers.num_workers}; leave "
            "in_process off to use Ray"
        )
    train_worker(
        config,
        features,
        run,
        workers,
        observers=Observers(on_progress),
        lease_token=held_token(run),
    )


def _finish(
    config: TrainConfig, features: Location, manifest: FeaturizeManifest, run: Location, name: str
) -> TrainManifest:
    """Write what outlives the checkpoints: best weights, metrics, label statistics."""
    store = CheckpointStore(run)
    state = store.newest()
    if state is None or len(state.epochs) < config.num_epochs:
        raise PipelineError(f"training at {run} stopped before its last epoch; run it again")
    index = index_split(features, manifest, "train", config)
    check_epochs(index, config, state.epochs)
    best = next(metrics for metrics in state.epochs if metrics.epoch == state.best_epoch)
    if not best.is_affordable:
        logger.warning(
            "no epoch is within the budget: the one that is kept needs %.3g M multiplications per "
            "second; train longer, or take a smaller hidden_size",
            (best.multiplications_per_s or 0.0) / 1e6,
        )
    weights_sha256 = save_tensors(run.child(WEIGHTS_NAME), store.weights_of(state.best_epoch))
    statistics_sha256 = write_label_statistics(run, features, manifest)
    write_metrics(run, state.epochs)
    store.tidy(state)
    outputs = num_outputs(len(manifest.labels.symbols), config.objective, manifest.states)
    network = build_network(config.model, manifest.num_features, outputs)
    return TrainManifest(
        stage=STAGE,
        schema_version=TRAIN_SCHEMA_VERSION,
        fingerprint=name,
        upstream={"features": manifest.fingerprint},
        created_at=timestamp(),
        versions=software_versions("torch", "numpy", "ray", "pyarrow"),
        config=config,
        features=features.uri,
        num_features=manifest.num_features,
        frame_shift_s=manifest.frame_shift_s,
        labels=manifest.labels,
        cmvn=manifest.cmvn,
        best_epoch=best.epoch,
        best_dev_error=best.dev_error,
        num_epochs=len(state.epochs),
        num_parameters=network.num_parameters(),
        weights=WEIGHTS_NAME,
        weights_sha256=weights_sha256,
        label_statistics=STATISTICS_NAME,
        label_statistics_sha256=statistics_sha256,
        metrics=state.epochs,
        states=manifest.states,
        utterances={**index.use, **index_split(features, manifest, "dev", config).use},
    )


def write_metrics(run: Location, epochs: Sequence[EpochMetrics]) -> None:
    """Write ``metrics.parquet``, a row per epoch."""
    rows = [metrics.model_dump() for metrics in epochs]
    write_table(run.child(METRICS_NAME), pa.Table.from_pylist(rows).schema, rows)


def write_label_statistics(run: Location, features: Location, manifest: FeaturizeManifest) -> str:
    """Write what the decoders know of the training labels; returns the file's SHA-256."""
    return save_tensors(run.child(STATISTICS_NAME), _label_statistics(features, manifest))


def _label_statistics(features: Location, manifest: FeaturizeManifest) -> dict[str, Tensor]:
    subsets = set(manifest.splits["train"])
    targets = (
        found
        for shard in manifest.shards
        if shard.subset in subsets
        for found in read_targets(features, shard)
    )
    return label_statistics(targets, len(manifest.labels.symbols), manifest.num_frame_targets)
