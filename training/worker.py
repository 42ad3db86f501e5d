"""What one training worker does, whoever started it."""

import torch
from torch import nn

from featurize.schema import FeaturizeManifest
from featurize.shards import shards_of, verify_shards
from featurize.stage import Location, available_cores, read_manifest
from training.checkpoint import CheckpointStore
from training.collectives import rank, world_size
from training.data import TrainingData
from training.distillation import Teacher
from training.loop import Observers, TrainingLoop
from training.models.build import build_network, num_outputs
from training.train_config import TrainConfig
from training.worker_config import WorkerConfig


def set_threads(workers: WorkerConfig, num_workers_here: int) -> None:
    """Give this worker its share of the node's cores for tensor work."""
    share = max(1, available_cores() // num_workers_here)
    torch.set_num_threads(workers.threads_per_worker or share)


def train_worker(
    config: TrainConfig,
    features: Location,
    run: Location,
    workers: WorkerConfig,
    *,
    device: torch.device | None = None,
    num_workers_here: int = 1,
    observers: Observers | None = None,
    lease_token: str | None = None,
) -> None:
    """Train to the end, resuming where a checkpoint is; collectives must be set up.

    Args:
        run: where checkpoints and progress go.
        device: this worker's device; the CPU by default.
        num_workers_here: workers that share this machine's cores.
        lease_token: of the lease that the driver holds on the run.
    """
    device = device or torch.device("cpu")
    set_threads(workers, num_workers_here)
    manifest = read_manifest(features, FeaturizeManifest)
    used = shards_of(manifest, {*manifest.splits.get("train", ()), *manifest.splits.get("dev", ())})
    # Each worker checks its share, at least one shard in all.
    verify_shards(features, used[rank() :: world_size()], workers.verify_features)
    data = TrainingData(features, manifest, config)
    # Every worker draws the same initial weights.
    torch.manual_seed(config.seed)
    outputs = num_outputs(len(manifest.labels.symbols), config.objective, manifest.states)
    network = build_network(config.model, manifest.num_features, outputs)
    if config.objective == "ctc":
        network.favour_blank()
    network.to(device)
    bfloat16 = workers.bfloat16 and device.type == "cuda"
    if bfloat16:
        # What stays float32 beside bfloat16 is the recurrence: its products keep ten bits, too.
        torch.backends.cuda.matmul.allow_tf32 = True
    module: nn.Module = network
    # An elastic group may have any size, and still be one of several workers.
    if world_size() > 1:
        devices = [device.index or 0] if device.type == "cuda" else None
        # Statistics are reduced where they are computed, so buffers need no broadcast.
        module = nn.parallel.DistributedDataParallel(
            network, device_ids=devices, broadcast_buffers=False
        )
    teacher = Teacher.load(config, run, manifest, outputs)
    loop = TrainingLoop(
        network=network,
        module=module,
        config=config,
        data=data,
        store=CheckpointStore(run, lease_token),
        device=device,
        bfloat16=bfloat16,
        observers=observers or Observers(),
        teacher=None if teacher is None else teacher.to(device),
    )
    loop.run()
