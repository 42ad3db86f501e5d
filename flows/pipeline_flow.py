"""The whole pipeline: corpus in, comparison out, stage by stage as subflows."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from featurize.stage import Location, StageResult, TypedConfig
from flows.align_flow import align_flow
from flows.artifacts import publish_markdown, publish_table
from flows.comparison import read_metrics
from flows.evaluate_flow import evaluate_flow, illustrated_summary
from flows.featurize_flow import featurize_flow
from flows.recipe_commands import synthesize_below
from flows.recipes import Recipe
from flows.run_logging import send_logs_to_runs
from flows.train_flow import named_runs, train_flow
from training.worker_config import WorkerConfig

send_logs_to_runs()


class StageOutcome(TypedConfig):
    """Where a stage's result is.

    Attributes:
        location: address of the result.
        fingerprint: what names it.
        skipped: whether it stood there already.
    """

    location: str
    fingerprint: str
    skipped: bool

    @classmethod
    def of(cls, result: StageResult) -> "StageOutcome":
        """From a stage's own result."""
        return cls(
            location=result.location.uri, fingerprint=result.fingerprint, skipped=result.skipped
        )


class PipelineOutcome(TypedConfig):
    """Where every stage's result is.

    Attributes:
        alignment: the aligned features, where the recipe aligns.
        models: the training runs, by the name each has in the evaluation.
    """

    recipe: str
    features: StageOutcome
    alignment: StageOutcome | None
    models: dict[str, StageOutcome]
    evaluation: StageOutcome

    @property
    def did_nothing(self) -> bool:
        """Whether every stage's result stood there already."""
        aligned = () if self.alignment is None else (self.alignment,)
        stages = (self.features, *aligned, *self.models.values(), self.evaluation)
        return all(stage.skipped for stage in stages)


# The outcome is kept, as JSON, for whoever asks the API for it. The stages' results are not: a
# retried run finds each stage by its manifest, on whatever machine it runs.
@flow(
    name="pipeline",
    flow_run_name="pipeline-{recipe.name}",
    persist_result=True,
    result_serializer="json",
)
def pipeline_flow(
    recipe: Recipe, corpus: str | None, runs: str, workers: WorkerConfig | None = None
) -> PipelineOutcome:
    """Featurize a corpus, align it if need be, train the recipe's models, compare them.

    Finished stages are found, not done again.

    Args:
        recipe: what to do at every stage.
        corpus: root of the corpus, a path or ``s3://`` address; empty synthesises the recipe's own
            below ``runs`` (demo).
        runs: root of all stages' results, a path or ``s3://`` address.
        workers: where training runs; empty for the recipe's own.
    """
    workers = workers or recipe.workers
    root = corpus or synthesize(recipe, runs)
    features = featurize_flow(recipe.featurize, root, runs, recipe.fan_out)
    alignment = None
    if recipe.align is not None:
        alignment = align_flow(recipe.align, features.location.uri, runs, workers)
    source = (alignment or features).location.uri
    models = named_runs(
        [
            train_flow(config, source, runs, workers, tracking=recipe.tracking)
            for config in recipe.trainings
        ]
    )
    evaluation = evaluate_flow(
        recipe.evaluate,
        [model.location.uri for model in models.values()],
        source,
        runs,
        tracking=recipe.tracking,
    )
    outcome = PipelineOutcome(
        recipe=recipe.name,
        features=StageOutcome.of(features),
        alignment=None if alignment is None else StageOutcome.of(alignment),
        models={name: StageOutcome.of(result) for name, result in models.items()},
        evaluation=StageOutcome.of(evaluation),
    )
    publish_outcome(outcome)
    return outcome


@task(name="publish-outcome", cache_policy=NO_CACHE, persist_result=False)
def publish_outcome(outcome: PipelineOutcome) -> None:
    """Publish on the pipeline's own run what its stages' runs show: summary, plots, locations."""
    evaluation = Location.of(outcome.evaluation.location)
    metrics = read_metrics(evaluation)
    publish_markdown(
        "pipeline-summary",
        illustrated_summary(evaluation, metrics),
        f"{outcome.recipe}; report: {evaluation.child('report.html')}",
    )
    aligned = {} if outcome.alignment is None else {"alignment": outcome.alignment}
    stages = {
        "features": outcome.features,
        **aligned,
        **outcome.models,
        "evaluation": outcome.evaluation,
    }
    publish_table(
        "pipeline-stages",
        [
            {
                "stage": name,
                "done": "found finished" if stage.skipped else "in this run",
                "location": stage.location,
            }
            for name, stage in stages.items()
        ],
        f"{outcome.recipe}: where each stage's result is",
    )


@task(name="synthesize", cache_policy=NO_CACHE, persist_result=False)
def synthesize(recipe: Recipe, runs: str) -> str:
    """Write the recipe's synthetic corpus, or find it there."""
    return str(synthesize_below(Location.of(runs), recipe))
