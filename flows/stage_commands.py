"""The commands that run flows: check what can be checked at once, run, show the result."""

import codecs
import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from rich.console import RenderableType
from rich.text import Text

from evaluation.config import EvaluateConfig
from featurize.corpora.registry import READERS, recognised
from featurize.corpora.scan import subsets_at
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.import_kaldi_config import KaldiImportConfig
from featurize.schema import FeaturizeManifest
from featurize.stage import (
    MANIFEST_NAME,
    Location,
    PipelineError,
    StageResult,
    condense,
    is_finished,
    read_manifest,
)
from flows.command import Command, command, prefect_api
from flows.corpus_commands import corpus_root
from flows.overrides import apply_overrides, check_search_settings, check_stage
from flows.recipes import Recipe, recipe_named
from training.align.align_config import AlignConfig
from training.manifest import TrainManifest
from training.worker_config import WorkerConfig

if TYPE_CHECKING:
    from evaluation.metrics import EvaluationMetrics
    from flows.pipeline_flow import PipelineOutcome

logger = logging.getLogger(__name__)

DEFAULT_RECIPE = "librispeech-100h"


def run_featurize(
    name: str, corpus: str, runs: str, overrides: Sequence[str], force: bool, as_json: bool
) -> None:
    """Run the featurization flow."""
    check_stage("featurize", overrides)
    recipe = apply_overrides(recipe_named(name), overrides)
    root, results = corpus_root(corpus), Location.of(runs)
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
        content = file.read_bytes().removeprefix(codecs.BOM_UTF8)
        wanted = KaldiImportConfig.model_validate_json(content)
    except ValidationError as error:
        raise PipelineError(f"--config {config}: {condense(error)}") from error
    with command(as_json) as running, prefect_api() as api:
        from flows.import_flow import import_kaldi_flow

        api.ready()
        result = import_kaldi_flow(wanted, results.uri, force)
        running.finish(_stage_json(result, running), f"features: {result.location}")


def run_align(
    name: str, features: str, runs: str, overrides: Sequence[str], force: bool, as_json: bool
) -> None:
    """Run the alignment flow, with the defaults where the recipe aligns nothing itself."""
    check_stage("align", overrides)
    recipe = apply_overrides(recipe_named(name), overrides)
    upstream, results = _finished(features, "feature set", "featurize"), Location.of(runs)
    config = recipe.align or AlignConfig()
    with command(as_json) as running, prefect_api() as api:
        from flows.align_flow import align_flow

        api.ready()
        result = align_flow(config, upstream.uri, results.uri, force, recipe.fan_out)
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
    check_stage("train", overrides)
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
    name: str | None,
    models: Sequence[str],
    scored: "ScoredSpeech",
    runs: str | None,
    overrides: Sequence[str],
    force: bool,
    as_json: bool,
) -> None:
    """Run the evaluation flow and show the comparison; of another corpus, featurize it first.

    Args:
        name: the recipe; None for the defaults of an evaluation.
    """
    recipe = recipe_named(name or DEFAULT_RECIPE)
    if name is None:
        recipe = recipe.model_copy(update={"evaluate": EvaluateConfig()})
    recipe = apply_overrides(recipe, overrides)
    scored.check(overrides)
    check_stage("evaluate", overrides)
    trained = [_finished(model, "trained model", "train") for model in models]
    results = trained[0].parent.parent if runs is None else Location.of(runs)
    features = scored.features
    upstream = None if features is None else _finished(features, "feature set", "featurize")
    root = None if scored.corpus is None else corpus_root(scored.corpus)
    with command(as_json) as running, prefect_api() as api:
        from flows.evaluate_flow import evaluate_flow
        from flows.featurize_flow import featurize_flow

        config = recipe.evaluate
        wanted = None
        if root is not None:
            from evaluation.trained_on import trained_on

            for location in trained:
                logger.info("%s", trained_on(location))
            wanted = featurize_for_scoring(trained, root, config.subsets)
            config = _as_chosen(config.model_copy(update={"split": "test"}), trained)
        check_search_settings(config.search_of, overrides)
        api.ready()
        if root is not None and wanted is not None:
            upstream = featurize_flow(wanted, root.uri, results.uri, recipe.fan_out).location
        assert upstream is not None
        result = evaluate_flow(
            config,
            [location.uri for location in trained],
            upstream.uri,
            results.uri,
            force,
            recipe.tracking,
            recipe.fan_out,
        )
        about = _stage_json(result, running) | _metrics_json(result.location)
        running.finish(about, *_shown_comparison(result.location))


@dataclass(frozen=True)
class ScoredSpeech:
    """What an evaluation scores: one of the two."""

    features: str | None = None  # address of a finished feature set
    corpus: str | None = None  # root of a corpus, to be featurized first

    def check(self, overrides: Sequence[str]) -> None:
        """Raise ``PipelineError`` where both are named, neither, or a setting without effect."""
        if (self.features is None) == (self.corpus is None):
            raise PipelineError("name either --features or, for another corpus, --corpus")
        idle = [text for text in overrides if text.startswith("featurize.")]
        if self.corpus is not None and idle:
            raise PipelineError(
                f"--set {idle[0]}: another corpus is featurized as the model's own was; leave this "
                "out, or run spikeline featurize and name its result by --features"
            )


def featurize_for_scoring(
    models: Sequence[Location], corpus: Location, subsets: tuple[str, ...] = ()
) -> FeaturizeConfig:
    """The features that the models know, of a corpus that is only scored.

    Args:
        models: finished training runs; their own feature sets say how features are made.
        corpus: root of the corpus, of any speakers.
        subsets: those to score; all that the corpus has where none is named.
    """
    found: list[FeaturizeConfig] = []
    for model in models:
        source = Location.of(read_manifest(model, TrainManifest).features)
        if not is_finished(source):
            raise PipelineError(
                f"model {model} was trained on {source}, which says how features are made and is "
                "gone; featurize the corpus as it was, and name the result by --features"
            )
        made = read_manifest(source, FeaturizeManifest).config
        try:
            found.append(FeaturizeConfig.model_validate(made))
        except ValidationError as error:
            raise PipelineError(f"{source}: {condense(error)}; it cannot be made alike") from error
    # Which speakers make a subset is of the models' own corpus.
    alike = {"splits": SplitsConfig(test=("any",)), "speaker_subsets": ()}
    own = [config.model_copy(update=alike) for config in found]
    if any(config != own[0] for config in own):
        raise PipelineError("the models were trained on different features; score them one by one")
    reader = _reader_of(corpus, own[0].corpus)
    named = subsets or subsets_at(reader, corpus)
    changes = {"corpus": reader, "splits": SplitsConfig(test=named), "speed_factors": ()}
    return own[0].model_copy(update=changes)


def _reader_of(corpus: Location, own: str) -> str:
    """The reader that a model's own corpus had, unless only another one recognises this corpus."""
    if own not in READERS.built_in:
        return own
    try:
        if READERS.named(own).recognises(corpus):
            return own
    except (PipelineError, OSError):
        pass  # not laid out as the model's own
    try:
        reader = recognised(corpus)
    except PipelineError:
        return own  # whose message says what it looked for
    logger.info("%s: read as %s", corpus, reader)
    return reader


def _as_chosen(config: EvaluateConfig, models: Sequence[Location]) -> EvaluateConfig:
    """With the search that an earlier evaluation of these models chose on dev, if there is one."""
    if config.search_of is not None:
        return config
    from evaluation.chosen import evaluation_of_all

    evaluation = evaluation_of_all(models)
    if evaluation is None:
        logger.warning(
            "no evaluation chose weights for the search of %s: the defaults stand in, and more "
            "errors are to be expected; evaluate with a dev split first, or name an evaluation by "
            "--set evaluate.search_of",
            ", ".join(map(str, models)),
        )
        return config
    logger.info("the search is that of %s", evaluation)
    return config.model_copy(update={"search_of": evaluation.uri})


def run_pipeline(
    name: str,
    corpus: str | None,
    runs: str,
    overrides: Sequence[str],
    num_workers: int | None,
    as_json: bool,
) -> None:
    """Run every stage and show the comparison.

    Args:
        corpus: its root; None for the recipe's own synthetic one, made below the runs.
    """
    recipe = apply_overrides(recipe_named(name), overrides)  # a mistake is told at once
    root = None if corpus is None else corpus_root(corpus)
    results = Location.of(runs)
    with command(as_json) as running, prefect_api() as api:
        if root is None:  # the embedded server starts meanwhile
            from flows.recipe_commands import synthesize_below

            root = Location.of(synthesize_below(results, recipe))
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
    from flows.comparison import comparison_table, read_metrics, seeds_table

    metrics = read_metrics(evaluation)
    over_seeds = seeds_table(metrics)
    return [
        *([over_seeds] if over_seeds is not None else []),
        comparison_table(metrics),
        *sentences_of(metrics),
        "",
        f"report: {evaluation.child('report.html')}",
    ]


def sentences_of(metrics: "EvaluationMetrics") -> list[Text | str]:
    """What an evaluation says on the screen below its table, each thing once."""
    from evaluation.claims import summary_lines
    from evaluation.headline import headline

    first = headline(metrics)
    whole = f"{first.sentence} {first.reservation}".strip()
    lines = [line for line in summary_lines(metrics) if line not in (whole, first.reservation)]
    reservation = [first.reservation] if first.reservation else []
    return [Text(first.sentence, style="bold"), *reservation, *lines]
