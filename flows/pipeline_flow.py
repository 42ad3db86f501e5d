"""The whole pipeline: corpus in, comparison out, stage by stage as subflows."""

from prefect import flow

from featurize.stage import StageResult
from featurize.typed_config import TypedConfig
from flows.evaluate_flow import evaluate_flow
from flows.featurize_flow import featurize_flow
from flows.recipes import Recipe
from flows.train_flow import train_flow
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
        models: model name to its training run.
    """

    recipe: str
    features: StageOutcome
    models: dict[str, StageOutcome]
    evaluation: StageOutcome

    @property
    def did_nothing(self) -> bool:
        """Whether every stage's result stood there already."""
        return all(s.skipped for s in (self.features, self.evaluation, *self.models.values()))


@flow(name="pipeline", flow_run_name="pipeline-{recipe.name}")
def pipeline_flow(
    recipe: Recipe, corpus: str, runs: str, workers: WorkerConfig | None = None
) -> PipelineOutcome:
    """Featurize a corpus, train the recipe's models, compare them.

    Finished stages are found, not done again.

    Args:
        recipe: what to do at every stage.
        corpus: root of the corpus, a path or ``s3://`` address.
        runs: root of all stages' results, a path or ``s3://`` address.
        workers: where training runs; empty for the recipe's own.
    """
    features = featurize_flow(recipe.featurize, corpus, runs, recipe.fan_out)
    models = {
        config.model.model: train_flow(
            config, features.location.uri, runs, workers or recipe.workers
        )
        for config in recipe.models
    }
    evaluation = evaluate_flow(
        recipe.evaluate,
        [model.location.uri for model in models.values()],
        features.location.uri,
        runs,
    )
    return PipelineOutcome(
        recipe=recipe.name,
        features=StageOutcome.of(features),
        models={name: StageOutcome.of(result) for name, result in models.items()},
        evaluation=StageOutcome.of(evaluation),
    )
