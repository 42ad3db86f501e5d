"""Training on a Ray cluster, or on this machine's own, through Ray Train.

Ray starts the workers, connects them (gloo on CPUs, NCCL on GPUs) and restarts them after a
failure; checkpoints are this project's own, so a restarted run resumes from the newest complete
one.
"""

import json
import os
import tempfile
from functools import partial
from pathlib import Path

from featurize.stage import (
    Location,
    PipelineError,
    call_on_ray,
    check_token,
    held_token,
    ray_session,
)
from training import process_environment
from training.checkpoint import CheckpointStore
from training.loop import Observers, ProgressCallback
from training.manifest import EpochMetrics
from training.progress import ProgressFile, watching
from training.train_config import TrainConfig
from training.worker_config import WorkerConfig

# Read by Ray at import: faster polling of finished workers, no metrics server, and no
# replacement of the built-in print.
_RAY_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TQDM_PATCH_PRINT": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
for _name, _value in _RAY_ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
import ray.train  # noqa: E402
import ray.train.torch  # noqa: E402
from ray.tune.integration.ray_train import TuneReportCallback  # noqa: E402

_FAILURE_NAME = "failure.txt"
_RAY_FOLDER = "ray"
CHECKPOINT_POINTER = "checkpoint.json"
"""In a checkpoint as Ray Train sees it: where the checkpoint lies."""


def _backends(workers: WorkerConfig) -> str:
    """Which library reduces over workers, by where a tensor lies: sums of an epoch lie on CPUs."""
    return "cpu:gloo,cuda:nccl" if workers.use_gpu else "gloo"


def fit(
    config: TrainConfig,
    features: Location,
    run: Location,
    workers: WorkerConfig,
    on_progress: ProgressCallback | None,
) -> ray.train.Result:
    """Train with Ray Train until the last epoch's checkpoint stands below ``run``.

    Ray Train is told the metrics of every epoch, and where its checkpoint lies; within a trial of
    Ray Tune, so is Tune.

    Args:
        features: a finished feature set, readable from every node.
        run: where checkpoints go, writable from every node.
        on_progress: called in this process while training goes.

    Returns:
        Ray Train's result, with the metrics of the epochs that were trained now.
    """
    with ray_session():
        _check_resources(workers)
        return _fit(config, features, run, workers, on_progress or _ignore)


def _fit(
    config: TrainConfig,
    features: Location,
    run: Location,
    workers: WorkerConfig,
    on_progress: ProgressCallback,
) -> ray.train.Result:
    # What Ray kept of an interrupted run: ours are the checkpoints that count.
    run.child(_RAY_FOLDER).remove()
    run.child(_FAILURE_NAME).remove()
    results: list[ray.train.Result] = []
    trainer = ray.train.torch.TorchTrainer(
        _worker_entry,
        train_loop_config={
            "config": config.model_dump_json(),
            "workers": workers.model_dump_json(),
            "features": features.uri,
            "run": run.uri,
            "lease_token": held_token(run) or "",
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=_num_workers(workers),
            use_gpu=workers.use_gpu,
            resources_per_worker=_resources_per_worker(workers),
            elastic_resize_monitor_interval_s=workers.resize_check_s,
        ),
        torch_config=ray.train.torch.TorchConfig(backend=_backends(workers)),
        run_config=ray.train.RunConfig(
            name=_RAY_FOLDER,
            storage_path=run.path,
            storage_filesystem=run.arrow(),
            failure_config=ray.train.FailureConfig(max_failures=workers.max_failures),
            worker_runtime_env={"env_vars": process_environment.environment()},
            callbacks=_callbacks(),
        ),
    )
    with watching(run, on_progress):
        try:
            call_on_ray(lambda: results.append(trainer.fit()))
        except ray.exceptions.RayTaskError:
            raise  # of Ray's own controller: nothing that a person can mend
        except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
            _raise_failure(run)
            raise PipelineError(
                f"training failed on its workers: {_root_cause(error)}; finished epochs are kept "
                f"at {run}, running the stage again resumes there"
            ) from error
    _raise_failure(run)
    run.child(_RAY_FOLDER).remove()
    return results[0]


def _raise_failure(run: Location) -> None:
    """Raise what a worker failed of, where it said so, or that the run is another driver's."""
    token = held_token(run)
    if token is not None:
        check_token(run, token)
    failure = run.child(_FAILURE_NAME)
    if failure.exists():
        message = failure.read_bytes().decode()
        failure.remove()
        raise PipelineError(message)


def _callbacks() -> list[ray.train.UserCallback]:
    """In a trial of Ray Tune, what hands it the metrics of each epoch."""
    try:
        return [TuneReportCallback()]
    except RuntimeError:  # this is no trial
        return []


def _ignore(_: object) -> None:
    """Takes the progress of a run that nothing displays."""


def _num_workers(workers: WorkerConfig) -> int | tuple[int, int]:
    """As Ray Train takes it: a number, or a range for an elastic group."""
    if workers.min_workers is None:
        return workers.num_workers
    return workers.min_workers, workers.num_workers


def _resources_per_worker(workers: WorkerConfig) -> dict[str, float]:
    resources = {"CPU": workers.cpus_per_worker, **workers.resources_per_worker}
    if workers.use_gpu:
        resources["GPU"] = 1.0
    return resources


def _check_resources(workers: WorkerConfig) -> None:
    """Refuse what would wait forever."""
    if workers.cluster_grows:
        return
    field = "num_workers" if workers.min_workers is None else "min_workers"
    num_workers = workers.min_workers or workers.num_workers
    available = ray.cluster_resources()
    for name, amount in _resources_per_worker(workers).items():
        needed = amount * num_workers
        if needed > available.get(name, 0.0):
            raise PipelineError(
                f"{field}={num_workers} needs {needed:g} {name} and the Ray cluster has "
                f"{available.get(name, 0.0):g}; use fewer workers or a larger cluster, or set "
                "cluster_grows for one that grows by itself"
            )


def _root_cause(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[-1] if text else type(error).__name__


def _report(run: Location, metrics: EpochMetrics) -> None:
    """Tell Ray Train of a finished epoch; it waits until all workers have."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None
        if ray.train.get_context().get_world_rank() == 0:
            address = CheckpointStore(run).directory(metrics.epoch).uri
            Path(folder, CHECKPOINT_POINTER).write_text(json.dumps({"uri": address}))
            checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report(metrics.model_dump(mode="json"), checkpoint)


def _worker_entry(settings: dict[str, str]) -> None:
    """Runs in each Ray Train worker."""
    from training.worker import train_worker

    workers = WorkerConfig.model_validate_json(settings["workers"])
    run = Location(settings["run"])
    token = settings["lease_token"] or None
    context = ray.train.get_context()
    failure = run.child(_FAILURE_NAME)
    if failure.exists() or _is_lost(token):
        return  # a worker of this group failed before, of what it would meet again
    try:
        train_worker(
            TrainConfig.model_validate_json(settings["config"]),
            Location(settings["features"]),
            run,
            workers,
            device=ray.train.torch.get_device(),
            num_workers_here=context.get_local_world_size(),
            observers=Observers(ProgressFile(run), partial(_report, run)),
            lease_token=token,
        )
    except PipelineError as error:
        if not _is_lost(token):
            failure.write_bytes(str(error).encode())
        if context.get_world_size() > 1:
            raise  # the others wait for this one; the group ends, and begins again to return


def _is_lost(token: str | None) -> bool:
    """Whether the lease is gone, so that the run is another driver's by now."""
    return token is not None and not Location(token).exists()
