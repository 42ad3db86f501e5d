"""The whole pipeline: corpus in, comparison out, stage by stage as subflows."""

from prefect import flow

from featurize.stage import StageResult
from featurize.typed_config import TypedConfig
from flows.align_flow import align_flow
from flows.evaluate_flow import evaluate_flow
from flows.featurize_flow import featurize_flow
from flows.recipes import Recipe
from flows.train_flow import named_runs, train_flow
from training.config import WorkerConfig


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


@flow(name="pipeline", flow_run_name="pipeline-{recipe.name}")
def pipeline_flow(
    recipe: Recipe, corpus: str, runs: str, workers: WorkerConfig | None = None
) -> PipelineOutcome:
    """Featurize a corpus, align it if need be, train the recipe's models, compare them.

    Finished stages are found, not done again.

    Args:
        recipe: what to do at every stage.
        corpus: root of the corpus, a path or ``s3://`` address.
        runs: root of all stages' results, a path or ``s3://`` address.
        workers: where training runs; empty for the recipe's own.
    """
    workers = workers or recipe.workers
    features = featurize_flow(recipe.featurize, corpus, runs, recipe.fan_out)
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
    return PipelineOutcome(
        recipe=recipe.name,
        features=StageOutcome.of(features),
        alignment=None if alignment is None else StageOutcome.of(alignment),
        models={name: StageOutcome.of(result) for name, result in models.items()},
        evaluation=StageOutcome.of(evaluation),
    )
