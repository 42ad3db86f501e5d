"""The evaluation flow: trained recognisers and a feature set in, one comparison out."""

import logging

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from evaluation.comparison import (
    comparison_table,
    escape_markdown,
    pareto_table,
    settings_table,
    summary_markdown,
)
from evaluation.config import EvaluateConfig
from evaluation.evaluate import evaluate
from evaluation.figures import plot_words
from evaluation.manifest import EvaluateManifest
from evaluation.metrics import EvaluationMetrics
from featurize.stage import FanOut, Location, StageResult, read_manifest
from flows.artifacts import (
    artifact_key,
    publish_link,
    publish_markdown,
    publish_picture,
    publish_table,
)
from flows.comparison import read_metrics
from flows.pictures import picture
from flows.progress import EVALUATING, stage_progress
from flows.retries import RETRIED, is_first_attempt
from flows.run_logging import send_logs_to_runs
from flows.run_names import run_name
from flows.tracking import track_evaluation
from flows.tracking_config import TrackingConfig

_LOGGER = logging.getLogger(__name__)
send_logs_to_runs()


def _name(config: EvaluateConfig, models: list[str], **_: object) -> str:
    count = f"{len(models)} model{'s' if len(models) > 1 else ''}"
    return f"evaluate {count} on {' '.join(config.subsets) or config.split}"


@flow(name="evaluate", persist_result=False, flow_run_name=run_name(_name))
def evaluate_flow(
    config: EvaluateConfig,
    models: list[str],
    features: str,
    runs: str,
    force: bool = False,
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008 - frozen, and the UI form's default
    fan_out: FanOut = FanOut(),  # noqa: B008
) -> StageResult:
    """Compare recognisers on a feature set, or find them compared.

    Args:
        config: what is scored, and how.
        models: addresses of finished training runs, in the order of the comparison.
        features: address of a finished feature set.
        runs: root of all stages' results, a path or ``s3://`` address.
        force: evaluate again even if finished.
        tracking: where metrics go beside the result.
        fan_out: where utterances are recognised; never changes the result.
    """
    result = evaluate_models(config, models, features, runs, force, fan_out)
    publish_comparison(result)
    publish_plots(result)
    track_evaluation(tracking, read_metrics(result.location), Location.of(runs), result.fingerprint)
    return result


@task(name="evaluate-models", task_run_name="evaluate-{config.split}", **RETRIED)
def evaluate_models(
    config: EvaluateConfig,
    models: list[str],
    features: str,
    runs: str,
    force: bool,
    fan_out: FanOut,
) -> StageResult:
    """Run the evaluation stage."""
    with stage_progress(EVALUATING, "evaluate", config.split) as shown:
        result = evaluate(
            config,
            [Location.of(model) for model in models],
            Location.of(features),
            Location.of(runs),
            fan_out=fan_out,
            force=force and is_first_attempt(),
            progress=shown.show_evaluation,
        )
        shown.update(1.0, "already evaluated" if result.skipped else "evaluated")
    return result


@task(name="publish-comparison", cache_policy=NO_CACHE)
def publish_comparison(result: StageResult) -> None:
    """Publish the comparison as a table, the summary as markdown, the result as a link."""
    metrics = read_metrics(result.location)
    done = "already evaluated" if result.skipped else "evaluated"
    _LOGGER.info("%-12s %s: %s", "evaluation", done, result.location)
    publish_link("evaluation", result.location, f"{done}; open report.html")
    publish_table("comparison", comparison_table(metrics), _scored(metrics))
    if over_seeds := settings_table(metrics):
        publish_table("seeds", over_seeds, f"{_scored(metrics)}; mean ± deviation over seeds")
    if choices := pareto_table(metrics):
        publish_table("pareto", choices, f"{_scored(metrics)}; cheapest setting first")
    publish_markdown("summary", illustrated_summary(result.location, metrics), _scored(metrics))


@task(name="publish-plots", cache_policy=NO_CACHE)
def publish_plots(result: StageResult) -> None:
    """Publish every plot with its title and words."""
    for plot in _plots(result.location):
        publish_picture(artifact_key("plot", plot.name.removesuffix(".png")), plot.read_bytes())


def _plots(evaluation: Location) -> list[Location]:
    files = read_manifest(evaluation, EvaluateManifest).files
    return [evaluation.child(name) for name in files if name.endswith(".png")]


def _scored(metrics: EvaluationMetrics) -> str:
    first = metrics.models[0]
    return (
        f"{first.num_utterances} utterances of {', '.join(metrics.subsets)}, "
        f"{first.num_frames * first.frame_shift_s / 3600:.2f} hours"
    )


def illustrated_summary(location: Location, metrics: EvaluationMetrics) -> str:
    """The summary with its plots below it, each under its title.

    Prefect's page gives it half of the window's width; the table of every column stands beside it.
    """
    parts = [summary_markdown(metrics, narrow=True)]
    for plot in _plots(location):
        png = plot.read_bytes()
        title, _ = plot_words(png)
        parts += [f"### {escape_markdown(title)}", picture(png)]
    return "\n\n".join(parts)
