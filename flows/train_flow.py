"""The training flow: a feature set in, one trained recogniser out."""

import logging
from collections.abc import Sequence

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from evaluation.comparison import escape_markdown
from evaluation.learning_curves import draw_learning_curves
from evaluation.run_names import name_runs
from evaluation.training_summary import training_lines
from featurize.schema import FeaturizeManifest
from featurize.stage import Location, StageResult, read_manifest
from flows.artifacts import artifact_key, publish_link, publish_markdown, publish_table
from flows.pictures import picture
from flows.progress import TRAINING, TrainingProgress, stage_progress, training_title
from flows.retries import RETRIED, is_first_attempt
from flows.run_logging import send_logs_to_runs
from flows.run_names import run_name, training_name
from flows.tracking import TrackedTraining
from flows.tracking_config import TrackingConfig
from training.manifest import TrainManifest, TrainProgress
from training.train import OnProgress, train, training_fingerprint
from training.train_config import TrainConfig
from training.worker_config import WorkerConfig

_LOGGER = logging.getLogger(__name__)
send_logs_to_runs()


def _name(config: TrainConfig, **_: object) -> str:
    return training_name(config)


@flow(name="train", persist_result=False, flow_run_name=run_name(_name))
def train_flow(
    config: TrainConfig,
    features: str,
    runs: str,
    workers: WorkerConfig = WorkerConfig(),  # noqa: B008 - frozen, and the UI form's default
    force: bool = False,
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
) -> StageResult:
    """Train a recogniser on a feature set, or find it trained.

    Args:
        config: what to train.
        features: address of a finished feature set.
        runs: root of all stages' results, a path or ``s3://`` address.
        workers: where training runs; never changes the result.
        force: train again even if finished.
        tracking: where metrics go beside the result.
    """
    result = train_model(config, features, runs, workers, force, tracking)
    publish_training(result)
    return result


def named_runs(trained: Sequence[StageResult]) -> dict[str, StageResult]:
    """Finished trainings by the names that an evaluation of them uses."""
    names = name_runs([read_manifest(result.location, TrainManifest) for result in trained])
    return {named.label: result for named, result in zip(names, trained, strict=True)}


@task(name="train-model", task_run_name="train-{config.model.spec.name}", **RETRIED)
def train_model(
    config: TrainConfig,
    features: str,
    runs: str,
    workers: WorkerConfig,
    force: bool,
    tracking: TrackingConfig,
) -> StageResult:
    """Run the training stage; another try resumes from the newest checkpoint."""
    name = training_fingerprint(config, read_manifest(Location.of(features), FeaturizeManifest))
    tracked = TrackedTraining(tracking, config, Location.of(runs), name)
    title = training_title(config)
    with stage_progress(TRAINING + title, "train", title) as shown:
        if not workers.in_process:
            shown.starting("Ray's workers")
        result = train(
            config,
            Location.of(features),
            Location.of(runs),
            workers,
            force=force and is_first_attempt(),
            on_progress=_both(TrainingProgress(config, shown), tracked),
        )
        manifest = read_manifest(result.location, TrainManifest)
        done = "already trained" if result.skipped else "trained"
        shown.update(1.0, done, _best(manifest))
    tracked.finish(manifest, result.skipped)
    return result


def _both(one: OnProgress, other: OnProgress) -> OnProgress:
    def tell(progress: TrainProgress) -> None:
        one(progress)
        other(progress)

    return tell


def _best(manifest: TrainManifest) -> str:
    return f"dev error {manifest.best_dev_error:.1%} after epoch {manifest.best_epoch + 1}"


@task(name="publish-training", cache_policy=NO_CACHE)
def publish_training(result: StageResult) -> None:
    """Publish where the recogniser is, its epochs as a table, and its summary with curves."""
    manifest = read_manifest(result.location, TrainManifest)
    model, best = training_title(manifest.config), _best(manifest)
    done = "already trained" if result.skipped else "trained"
    _LOGGER.info("%-12s %s, %s: %s", model, done, best, result.location)
    publish_link(artifact_key("train", model), result.location, f"{model}: {best}")
    publish_table(
        artifact_key("train", model, "epochs"),
        [
            {
                "epoch": metrics.epoch + 1,
                "train loss": metrics.train_loss,
                "dev loss": metrics.dev_loss,
                "dev error": metrics.dev_error,
                "learning rate": metrics.learning_rate,
                "skipped steps": metrics.num_skipped_steps,
                "frames/s": metrics.frames_per_s,
                "spike density": " ".join(f"{d:.3f}" for d in metrics.spike_density),
            }
            for metrics in manifest.metrics
        ],
        f"{model}: {best}",
    )
    publish_markdown(
        artifact_key("train", model, "summary"),
        "\n\n".join(
            [
                f"## {manifest.config.model.spec.title}",
                "\n".join(f"- {escape_markdown(line)}" for line in training_lines(manifest)),
                picture(draw_learning_curves({model: manifest}).png),
            ]
        ),
        f"{model}: {best}",
    )
