"""The commands that run flows: check what can be checked at once, run, show the result."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from rich.console import RenderableType

from featurize.corpora.scan import subsets_at
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.import_kaldi import KaldiImportConfig
from featurize.stage import MANIFEST_NAME, Location, PipelineError, StageResult, is_finished
from flows.command import Command, command, prefect_api
from flows.failures import condense
from flows.overrides import apply_overrides
from flows.recipes import Recipe, recipe_named
from training.align.align_config import AlignConfig
from training.worker_config import WorkerConfig

if TYPE_CHECKING:
    from flows.pipeline_flow import PipelineOutcome


def run_featurize(
    name: str, corpus: str, runs: str, overrides: Sequence[str], force: bool, as_json: bool
) -> None:
    """Run the featurization flow."""
    recipe = apply_overrides(recipe_named(name), overrides)
    root, results = _corpus(corpus), Location.of(runs)
    with command(as_json) as running, prefect_api() as api:
        from flows.featurize_flow import featurize_flow

        api.ready()
        result = featurize_flow(recipe.featurize, root.uri, results.uri, recipe.fan_out, force)
        following = "train" if recipe.align is None else "align"
        running.finish(
            _stage_json(result, running),
            f"features: {result.location}",
            _next(following, "--recipe", name, "--features", result.location.uri, "--runs", runs),
        )


def run_import_kaldi(config: str, runs: str, force: bool, as_json: bool) -> None:
    """Run the import flow on a configuration file."""
    file, results = Location.of(config), Location.of(runs)
    if not file.exists() or file.is_dir():
        raise PipelineError(f"--config {config}: no such file")
    try:
        wanted = KaldiImportConfig.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise PipelineError(f"--config {config}: {condense(error)}") from error
    with command(as_json) as running, prefect_api() as api:
        from flows.import_flow import import_kaldi_flow

        api.ready()
        result = import_kaldi_flow(wanted, results.uri, force)
        running.finish(_stage_json(result, running), f"features: {result.location}")


def run_align(
    name: str,
    features: str,
    runs: str,
    overrides: Sequence[str],
    num_workers: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Run the alignment flow, with the defaults where the recipe aligns nothing itself."""
    recipe = apply_overrides(recipe_named(name), overrides)
    upstream, results = _finished(features, "feature set", "featurize"), Location.of(runs)
    config = recipe.align or AlignConfig()
    workers = _workers(recipe, num_workers)
    with command(as_json) as running, prefect_api() as api:
        from flows.align_flow import align_flow

        api.ready()
        result = align_flow(config, upstream.uri, results.uri, workers, force)
        running.finish(
            _stage_json(result, running),
            f"aligned features: {result.location}",
            _next("train", "--recipe", name, "--features", result.location.uri, "--runs", runs),
        )


def run_train(
    name: str,
    features: str,
    runs: str,
    overrides: Sequence[str],
    num_workers: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Run the training flow for each of the recipe's models."""
    recipe = apply_overrides(recipe_named(name), overrides)
    upstream, results = _finished(features, "feature set", "featurize"), Location.of(runs)
    workers = _workers(recipe, num_workers)
    with command(as_json) as running, prefect_api() as api:
        from flows.train_flow import named_runs, train_flow

        api.ready()
        trained = named_runs(
            [
                train_flow(config, upstream.uri, results.uri, workers, force, recipe.tracking)
                for config in recipe.trainings
            ]
        )
        models = [f"--model={result.location.uri}" for result in trained.values()]
        running.finish(
            {
                "models": {model: _stage_json(result) for model, result in trained.items()},
                "seconds": round(running.seconds, 3),
            },
            *(f"{model}: {result.location}" for model, result in trained.items()),
            _next("evaluate", "--recipe", name, *models, "--features", features, "--runs", runs),
        )


def run_evaluate(
    name: str,
    models: Sequence[str],
    features: str | None,
    corpus: str | None,
    runs: str,
    overrides: Sequence[str],
    force: bool,
    as_json: bool,
) -> None:
    """Run the evaluation flow and show the comparison; of another corpus, featurize it first."""
    recipe = apply_overrides(recipe_named(name), overrides)
    results = Location.of(runs)
    if (features is None) == (corpus is None):
        raise PipelineError("name either --features or, for another corpus, --corpus")
    trained = [_finished(model, "trained model", "train") for model in models]
    upstream = None if features is None else _finished(features, "feature set", "featurize")
    root = None if corpus is None else _corpus(corpus)
    with command(as_json) as running, prefect_api() as api:
        from flows.evaluate_flow import evaluate_flow
        from flows.featurize_flow import featurize_flow

        api.ready()
        if root is not None:
            wanted = featurize_for_scoring(recipe, root)
            upstream = featurize_flow(wanted, root.uri, results.uri, recipe.fan_out).location
        assert upstream is not None
        scored = recipe.evaluate
        if root is not None:
            scored = scored.model_copy(update={"split": "test"})
        result = evaluate_flow(
            scored,
            [location.uri for location in trained],
            upstream.uri,
            results.uri,
            force,
            recipe.tracking,
        )
        running.finish(
            _stage_json(result, running) | _metrics_json(result.location),
            *_shown_comparison(result.location),
        )


def featurize_for_scoring(recipe: Recipe, corpus: Location) -> FeaturizeConfig:
    """The recipe's features of a corpus that is only scored: of the subsets that it has.

    Args:
        recipe: what the models were trained with; ``evaluate.subsets`` narrows the subsets.
        corpus: root of the corpus, of any speakers.
    """
    subsets = recipe.evaluate.subsets or subsets_at(recipe.featurize.corpus, corpus)
    return recipe.featurize.model_copy(update={"splits": SplitsConfig(test=subsets)})


def run_pipeline(
    name: str,
    corpus: str,
    runs: str,
    overrides: Sequence[str],
    num_workers: int | None,
    as_json: bool,
) -> None:
    """Run every stage and show the comparison."""
    apply_overrides(recipe_named(name), overrides)  # a mistake is told at once
    root, results = _corpus(corpus), Location.of(runs)
    with command(as_json) as running, prefect_api() as api:
        from flows.pipeline_flow import pipeline_flow

        api.ready()
        outcome = pipeline_flow(
            recipe=name,
            corpus=root.uri,
            runs=results.uri,
            workers=num_workers,
            overrides=tuple(overrides),
        )
        _finish_pipeline(running, outcome)


def run_demo(runs: str, overrides: Sequence[str], num_workers: int | None, as_json: bool) -> None:
    """Synthesise the demonstration's corpus below the runs and run every stage on it."""
    recipe = apply_overrides(recipe_named("demo"), overrides)
    results = Location.of(runs)
    with command(as_json) as running, prefect_api() as api:
        # The embedded server starts meanwhile.
        from flows.recipe_commands import synthesize_below

        corpus = synthesize_below(results, recipe)
        from flows.pipeline_flow import pipeline_flow

        api.ready()
        outcome = pipeline_flow(
            recipe="demo",
            corpus=str(corpus),
            runs=results.uri,
            workers=num_workers,
            overrides=tuple(overrides),
        )
        _finish_pipeline(running, outcome)


def _finish_pipeline(running: Command, outcome: "PipelineOutcome") -> None:
    evaluation = Location.of(outcome.evaluation.location)
    minutes, seconds = divmod(round(running.seconds), 60)
    took = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    running.finish(
        outcome.model_dump(mode="json")
        | {"did_nothing": outcome.did_nothing, "seconds": round(running.seconds, 3)}
        | _metrics_json(evaluation),
        *_shown_comparison(evaluation),
        (
            f"nothing to do: every stage was finished already (looked in {took})"
            if outcome.did_nothing
            else f"took {took}"
        ),
    )


def _corpus(corpus: str) -> Location:
    location = Location.of(corpus)
    if not location.is_dir():
        raise PipelineError(
            f"--corpus {corpus}: no such folder; name the root of the corpus, or make one with "
            "spikeline corpus synthesize"
        )
    return location


def _finished(address: str, what: str, stage_command: str) -> Location:
    location = Location.of(address)
    if not is_finished(location):
        raise PipelineError(
            f"{address}: no finished {what} there ({MANIFEST_NAME} is missing); check the path, "
            f"or run spikeline {stage_command}"
        )
    return location


def _workers(recipe: Recipe, num_workers: int | None) -> WorkerConfig:
    if num_workers is None:
        return recipe.workers
    changed = {"num_workers": num_workers, "in_process": False}
    return WorkerConfig.model_validate(recipe.workers.model_dump() | changed)


def _next(*words: str) -> str:
    return f"next: {shlex.join(('spikeline', *words))}"


def _stage_json(result: StageResult, running: Command | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "location": result.location.uri,
        "fingerprint": result.fingerprint,
        "skipped": result.skipped,
    }
    return found if running is None else found | {"seconds": round(running.seconds, 3)}


def _metrics_json(evaluation: Location) -> dict[str, Any]:
    from flows.comparison import read_metrics

    return {"metrics": read_metrics(evaluation).model_dump(mode="json")}


def _shown_comparison(evaluation: Location) -> list[RenderableType]:
    """The table, what it says in sentences, and where the report is."""
    from evaluation.claims import summary_lines
    from flows.comparison import comparison_table, read_metrics, seeds_table

    metrics = read_metrics(evaluation)
    over_seeds = seeds_table(metrics)
    return [
        *([over_seeds] if over_seeds is not None else []),
        comparison_table(metrics),
        *summary_lines(metrics),
        "",
        f"report: {evaluation.child('report.html')}",
    ]
