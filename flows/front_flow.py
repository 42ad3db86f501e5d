"""The flow ``front``: features, trainings and evaluations of all entries, then one page.

Every stage is found where it is finished, so that the flow goes on where it was stopped; every run
is evaluated alone, so that one more run does not score the others again. Trainings go seed by
seed: the first seed of every entry comes before the second of any.
"""

from collections.abc import Mapping
from typing import NamedTuple

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from evaluation.figures import Plot
from evaluation.front import FrontPoint, ScoredRun, read_scored_run
from evaluation.front_page import Missing, front_markdown, front_rates
from evaluation.front_plot import draw_front
from evaluation.front_table import front_csv
from featurize.featurize import plan_featurize
from featurize.schema import FeaturizeManifest
from featurize.stage import Location, is_finished, read_manifest
from flows.align_flow import align_flow
from flows.artifacts import publish_markdown
from flows.evaluate_flow import evaluate_flow
from flows.featurize_flow import featurize_flow
from flows.front_recipe import FrontEntry, FrontFeatures, FrontRecipe
from flows.pictures import picture
from flows.run_logging import send_logs_to_runs
from flows.train_flow import train_flow
from training.align.align import align_fingerprint
from training.align.write import STAGE as ALIGN
from training.train import STAGE as TRAINING
from training.train import training_fingerprint
from training.train_config import DistillationConfig, TrainConfig
from training.worker_config import WorkerConfig

send_logs_to_runs()

_TEACHER_SHARE = 0.7
"""Of the objective of an entry with a teacher, the distance to it."""


class FrontPage(NamedTuple):
    """What the flow ends with."""

    markdown: str | None  # the page; None where no entry is finished
    table: str  # its recognisers, as comma-separated values
    plots: tuple[Plot, ...]
    num_runs: int  # trained and scored recognisers on it
    missing: tuple[Missing, ...]  # entries that lack seeds


@flow(name="front", persist_result=False, flow_run_name="front")
def front_flow(
    recipe: FrontRecipe,
    chosen: FrontRecipe,
    corpus: str,
    runs: str,
    workers: WorkerConfig,
    found_only: bool = False,
    name: str = "front",
) -> FrontPage:
    """Train and score what is chosen, and draw the front of all that is finished.

    Args:
        recipe: every entry of the front.
        chosen: those of its entries and seeds that are trained where they are not finished.
        corpus: root of the corpus, a path or ``s3://`` address.
        runs: root of all stages' results, a path or ``s3://`` address.
        workers: where training runs; never changes the result.
        found_only: train nothing, and make no features: score and draw what is trained.
        name: of the page; the names of its plots begin with it.
    """
    sources: dict[str, str] = {}
    for features in recipe.features:
        wanted = any(entry.features == features.name for entry in chosen.entries)
        source = _targets(features, corpus, runs, wanted and not found_only)
        if source is not None:
            sources[features.name] = source
    if not found_only:
        _train(chosen, recipe, sources, runs, workers)
    points, missing = [], []
    for entry in recipe.entries:
        scored, lacking = _scored(entry, recipe, sources.get(entry.features), runs)
        if scored:
            points.append(_point(entry, recipe, scored))
        # Rounded weights are no training of their own.
        if lacking and entry.weight_bits is None:
            missing.append(Missing(entry.name, lacking))
    if not points:
        return FrontPage(None, "", (), 0, tuple(missing))
    plots = tuple(draw_front(points, rate, name) for rate in front_rates(points))
    markdown = front_markdown(points, missing, [f"{plot.name}.png" for plot in plots])
    publish_front(markdown, plots)
    num_runs = sum(len(point.runs) for point in points)
    return FrontPage(markdown, front_csv(points), plots, num_runs, tuple(missing))


def _targets(features: FrontFeatures, corpus: str, runs: str, make: bool) -> str | None:
    """Address of a feature set with its targets: made, or found, or None where it is not there."""
    if make:
        made = featurize_flow(features.featurize, corpus, runs)
        return align_flow(features.align, made.location.uri, runs).location.uri
    plan = plan_featurize(features.featurize, Location.of(corpus), Location.of(runs))
    if not is_finished(plan.location):
        return None
    manifest = read_manifest(plan.location, FeaturizeManifest)
    aligned = Location.of(runs).child(ALIGN, align_fingerprint(features.align, manifest))
    return aligned.uri if is_finished(aligned) else None


def _train(
    chosen: FrontRecipe,
    recipe: FrontRecipe,
    sources: Mapping[str, str],
    runs: str,
    workers: WorkerConfig,
) -> None:
    """Every training of the chosen entries and seeds, the first seed of all before the second."""
    for number, seed in enumerate(chosen.seeds):
        for entry in chosen.entries:
            if number >= entry.num_seeds:
                continue
            source = sources[entry.features]
            manifest = read_manifest(Location.of(source), FeaturizeManifest)
            for training in _trainings(entry, seed, recipe, manifest):
                train_flow(training, source, runs, workers)


def _trainings(
    entry: FrontEntry, seed: int, recipe: FrontRecipe, features: FeaturizeManifest
) -> tuple[TrainConfig, ...]:
    """An entry's training, after its teacher's where it has one."""
    training = entry.train.model_copy(update={"seed": seed})
    if entry.teacher is None:
        return (training,)
    before = _trainings(recipe.entry(entry.teacher), 0, recipe, features)
    teacher = training_fingerprint(before[-1], features)
    lesson = DistillationConfig(teacher=teacher, weight=_TEACHER_SHARE)
    return (*before, training.model_copy(update={"distillation": lesson}))


def _scored(
    entry: FrontEntry, recipe: FrontRecipe, source: str | None, runs: str
) -> tuple[tuple[ScoredRun, ...], tuple[int, ...]]:
    """The finished trainings of an entry, scored, and the seeds that are not finished."""
    wanted = recipe.seeds[: entry.num_seeds]
    if source is None:
        return (), wanted
    config = recipe.evaluate.model_copy(update={"weight_bits": entry.weight_bits})
    manifest = read_manifest(Location.of(source), FeaturizeManifest)
    scored, lacking = [], []
    for seed in recipe.seeds:
        training = _trainings(entry, seed, recipe, manifest)[-1]
        run = Location.of(runs).child(TRAINING, training_fingerprint(training, manifest))
        if not is_finished(run):
            if seed in wanted:
                lacking.append(seed)
            continue
        evaluation = evaluate_flow(config, [run.uri], source, runs)
        scored.append(read_scored_run(evaluation.location))
    return tuple(scored), tuple(lacking)


def _point(entry: FrontEntry, recipe: FrontRecipe, scored: tuple[ScoredRun, ...]) -> FrontPoint:
    (features,) = (each for each in recipe.features if each.name == entry.features)
    return FrontPoint(
        name=entry.name,
        family=entry.family,
        budget_m=entry.budget_m,
        is_dense=not entry.train.model.is_event_based,
        tuned=entry.tuned,
        runs=scored,
        aids=entry.aids,
        variant_of=entry.variant_of,
        train_subsets=frozenset(features.featurize.splits.train),
    )


@task(name="publish-front", cache_policy=NO_CACHE, persist_result=False)
def publish_front(markdown: str, plots: tuple[Plot, ...]) -> None:
    """Publish page and plots on the run."""
    pictures = [picture(plot.png) for plot in plots]
    publish_markdown("front", "\n\n".join([markdown, *pictures]), "Accuracy against computation")
