"""The whole pipeline: corpus in, comparison out, stage by stage as subflows."""

from collections.abc import Sequence

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from evaluation.comparison import escape_markdown
from evaluation.headline import Headline, headline
from featurize.stage import Location, StageResult, TypedConfig
from flows.align_flow import align_flow
from flows.comparison import read_metrics
from flows.evaluate_flow import evaluate_flow, illustrated_summary
from flows.featurize_flow import featurize_flow
from flows.form import Choices, Count, Override, RecipeChoice, Seed, Size, chosen_recipe
from flows.overview import Overview, locations_markdown, overview
from flows.progress import ALIGNING, EVALUATING, FEATURIZING, TRAINING, training_title
from flows.recipe_commands import synthesize_below
from flows.recipes import Recipe
from flows.report_link import report_address
from flows.retries import is_first_attempt
from flows.run_logging import send_logs_to_runs
from flows.run_names import chosen_name, run_name
from flows.train_flow import named_runs, train_flow
from training.models.model_config import ModelName

send_logs_to_runs()


class StageOutcome(TypedConfig):
    """Where a stage's result is."""

    location: str  # address of the result
    fingerprint: str
    skipped: bool  # whether it stood there already

    @classmethod
    def of(cls, result: StageResult) -> "StageOutcome":
        """From a stage's own result."""
        return cls(
            location=result.location.uri, fingerprint=result.fingerprint, skipped=result.skipped
        )


class PipelineOutcome(TypedConfig):
    """Where every stage's result is."""

    recipe: str
    features: StageOutcome
    alignment: StageOutcome | None  # the aligned features, where the recipe aligns
    models: dict[str, StageOutcome]  # the training runs, by the name each has in the evaluation
    evaluation: StageOutcome

    @property
    def did_nothing(self) -> bool:
        """Whether every stage's result stood there already."""
        aligned = () if self.alignment is None else (self.alignment,)
        stages = (self.features, *aligned, *self.models.values(), self.evaluation)
        return all(stage.skipped for stage in stages)


def _name_of_recipe(recipe: Recipe, **_: object) -> str:
    return f"{recipe.name} {' '.join(recipe.model_names)}"


def _name_of_form(
    recipe: str,
    models: Sequence[ModelName],
    size: int | None,
    epochs: int | None,
    seeds: Sequence[int],
    overrides: Sequence[str],
    **_: object,
) -> str:
    return chosen_name(recipe, Choices(models, size, epochs, seeds), overrides)


# The outcome is kept, as JSON, for whoever asks the API for it. The stages' results are not: a
# retried run finds each stage by its manifest, on whatever machine it runs.
@flow(
    name="pipeline",
    flow_run_name=run_name(_name_of_form),
    persist_result=True,
    result_serializer="json",
)
def pipeline_flow(
    recipe: RecipeChoice = "demo",
    corpus: str = "",
    runs: str = "runs",
    models: tuple[ModelName, ...] = (),
    size: Size = None,
    epochs: Count = None,
    seeds: tuple[Seed, ...] = (),
    workers: Count = None,
    force: bool = False,
    overrides: tuple[Override, ...] = (),
) -> PipelineOutcome:
    """Featurize a corpus, align it if need be, train the recipe's models, compare them.

    Finished stages are found, not done again.

    Args:
        recipe: What to do at every stage. The other fields change a copy of it.
        corpus: Root of the corpus, a path or an s3:// address. The demo makes its own where this
            is empty.
        runs: Root of all results, a path or an s3:// address.
        models: Models to train and compare. Empty for the recipe's own.
        size: Neurons per recurrent layer, of every model. Empty for the recipe's own.
        epochs: Epochs of every model's training. Empty for the recipe's own.
        seeds: Seeds; each model is trained once with each. Empty for the recipe's own.
        workers: Processes that train together. Empty for the recipe's own.
        force: Do every stage again, even where its result is there.
        overrides: Any other setting as KEY=VALUE, as --set takes it on the command line, for
            example featurize.num_bins=80 or train.optimizer.learning_rate=5e-4. What is written
            here goes over the fields above.
    """
    chosen = chosen_recipe(recipe, Choices(models, size, epochs, seeds, workers), overrides)
    return run_stages(chosen, corpus, runs, force)  # type: ignore[return-value]  # of the state


@flow(
    name="pipeline-with-every-setting",
    flow_run_name=run_name(_name_of_recipe),
    persist_result=True,
    result_serializer="json",
)
def configured_pipeline_flow(
    recipe: Recipe, corpus: str = "", runs: str = "runs", force: bool = False
) -> PipelineOutcome:
    """The same with every setting of every stage as a field of its own.

    Args:
        recipe: What to do at every stage.
        corpus: Root of the corpus, a path or an s3:// address. A recipe with a synthetic corpus
            makes it where this is empty.
        runs: Root of all results, a path or an s3:// address.
        force: Do every stage again, even where its result is there.
    """
    return run_stages(recipe, corpus, runs, force)  # type: ignore[return-value]  # of the state


def run_stages(recipe: Recipe, corpus: str, runs: str, force: bool) -> State[PipelineOutcome]:
    """Every stage as a subflow of the run at work, and what they say together.

    Args:
        recipe: what to do at every stage.
        corpus: root of the corpus; empty for the recipe's own synthetic one below ``runs``.
        runs: root of all stages' results.
        force: do every stage again; a retry of a forced run goes on with what it began.
    """
    with overview(recipe.name, recipe.explanation, stage_titles(recipe)) as page:
        outcome = _stages(recipe, corpus, runs, force and is_first_attempt())
        return publish_outcome(page, outcome)


def stage_titles(recipe: Recipe) -> list[str]:
    """The stages of a recipe in order, as their progress calls them."""
    aligned = [] if recipe.align is None else [ALIGNING]
    trainings = [TRAINING + training_title(config) for config in recipe.trainings]
    return [FEATURIZING, *aligned, *trainings, EVALUATING]


def _stages(recipe: Recipe, corpus: str, runs: str, again: bool) -> PipelineOutcome:
    root = corpus or synthesize(recipe, runs)
    features = featurize_flow(recipe.featurize, root, runs, recipe.fan_out, again)
    alignment = None
    if recipe.align is not None:
        alignment = align_flow(recipe.align, features.location.uri, runs, again, recipe.fan_out)
    source = (alignment or features).location.uri
    models = named_runs(
        [
            train_flow(config, source, runs, recipe.workers, again, recipe.tracking)
            for config in recipe.trainings
        ]
    )
    evaluation = evaluate_flow(
        recipe.evaluate,
        [model.location.uri for model in models.values()],
        source,
        runs,
        again,
        recipe.tracking,
        recipe.fan_out,
    )
    return PipelineOutcome(
        recipe=recipe.name,
        features=StageOutcome.of(features),
        alignment=None if alignment is None else StageOutcome.of(alignment),
        models={name: StageOutcome.of(result) for name, result in models.items()},
        evaluation=StageOutcome.of(evaluation),
    )


def publish_outcome(page: Overview, outcome: PipelineOutcome) -> "State[PipelineOutcome]":
    """Put the result on the run's page, the comparison first, and in its final state.

    Returns:
        The state of the finished run, whose message says the result in a line.
    """
    evaluation = Location.of(outcome.evaluation.location)
    metrics = read_metrics(evaluation)
    first = headline(metrics)
    aligned = {} if outcome.alignment is None else {"alignment": outcome.alignment}
    stages = {
        "features": outcome.features,
        **aligned,
        **outcome.models,
        "evaluation": outcome.evaluation,
    }
    report = report_address(evaluation)
    shown = f"[Open the report]({report})" if report.startswith("http") else f"Report: `{report}`"
    page.finish(
        "\n\n".join(
            [
                headline_markdown(first),
                shown,
                illustrated_summary(evaluation, metrics),
                locations_markdown({n: (s.location, s.skipped) for n, s in stages.items()}),
            ]
        )
    )
    found = "found finished: " if outcome.did_nothing else ""
    return Completed(message=found + first.sentence, data=outcome)


def headline_markdown(first: Headline) -> str:
    """The result for a reader with ten seconds: a sentence, three numbers, a reservation."""
    numbers = [
        f"| {' | '.join(escape_markdown(number.value) for number in first.numbers)} |",
        f"|{' --- |' * len(first.numbers)}",
        f"| {' | '.join(escape_markdown(number.meaning) for number in first.numbers)} |",
    ]
    parts = [f"## {escape_markdown(first.sentence)}", "\n".join(numbers)]
    return "\n\n".join([*parts, escape_markdown(first.reservation)]).rstrip()


@task(name="synthesize", cache_policy=NO_CACHE, persist_result=False)
def synthesize(recipe: Recipe, runs: str) -> str:
    """Write the recipe's synthetic corpus, or find it there."""
    return str(synthesize_below(Location.of(runs), recipe))
