"""One stage alone, started from a form of the Prefect UI.

A form begins with what its stage needs. The settings are a recipe's, as on the command line; what
is rarely changed goes into one field, ``overrides``.
"""

from collections.abc import Callable, Sequence

from prefect import flow

from featurize.stage import PipelineError, StageResult
from flows.align_flow import align_flow
from flows.evaluate_flow import evaluate_flow
from flows.featurize_flow import featurize_flow
from flows.form import (
    OVERRIDES,
    Choices,
    Count,
    Override,
    RecipeChoice,
    Seed,
    Size,
    chosen_recipe,
)
from flows.overrides import check_search_settings, check_stage
from flows.run_logging import send_logs_to_runs
from flows.run_names import chosen_name, run_name
from flows.train_flow import train_flow
from training.align.align_config import AlignConfig
from training.models.model_config import ModelName

send_logs_to_runs()


def _name(stage: str) -> Callable[[], str]:
    def describe(recipe: str, overrides: Sequence[str], **_: object) -> str:
        return chosen_name(f"{stage} {recipe}", Choices(), overrides)

    return run_name(describe)


def _name_of_training(
    model: ModelName, recipe: str, size: int | None, epochs: int | None, seed: int, **_: object
) -> str:
    return chosen_name(f"train {recipe}", Choices((model,), size, epochs, (seed,)))


@flow(name="stage-featurize", persist_result=False, flow_run_name=_name("featurize"))
def featurize_form(
    corpus: str,
    recipe: RecipeChoice = "demo",
    force: bool = False,
    overrides: tuple[Override, ...] = (),
    runs: str = "runs",
) -> StageResult:
    """Turn a corpus into feature shards, or find them made.

    Args:
        corpus: Root of the corpus, a path or an s3:// address.
        recipe: Whose settings of this stage to use.
        force: Do it again, even where its result is there.
        overrides: Any setting as KEY=VALUE, for example featurize.num_bins=80.
        runs: Root of all results, a path or an s3:// address.
    """
    check_stage("featurize", overrides, OVERRIDES)
    chosen = chosen_recipe(recipe, Choices(), overrides)
    return featurize_flow.fn(chosen.featurize, corpus, runs, chosen.fan_out, force)


@flow(name="stage-align", persist_result=False, flow_run_name=_name("align"))
def align_form(
    features: str,
    recipe: RecipeChoice = "mini-librispeech",
    force: bool = False,
    overrides: tuple[Override, ...] = (),
    runs: str = "runs",
) -> StageResult:
    """Find the phone of each frame, or find that done.

    Args:
        features: Address of finished features with phone labels: a run that made them shows it
            under Artifacts.
        recipe: Whose settings of this stage to use.
        force: Do it again, even where its result is there.
        overrides: Any setting as KEY=VALUE, for example align.targets.num_senones=400.
        runs: Root of all results, a path or an s3:// address.
    """
    check_stage("align", overrides, OVERRIDES)
    chosen = chosen_recipe(recipe, Choices(), overrides)
    config = chosen.align or AlignConfig()
    return align_flow.fn(config, features, runs, force, chosen.fan_out)


@flow(name="stage-train", persist_result=False, flow_run_name=run_name(_name_of_training))
def train_form(
    features: str,
    model: ModelName = "v2",
    size: Size = None,
    epochs: Count = None,
    seed: Seed = 0,
    workers: Count = None,
    recipe: RecipeChoice = "demo",
    force: bool = False,
    overrides: tuple[Override, ...] = (),
    runs: str = "runs",
) -> StageResult:
    """Train one model on finished features, or find it trained.

    Args:
        features: Address of finished (aligned) features: a run that made them shows it under
            Artifacts.
        model: The model to train.
        size: Neurons per recurrent layer. Empty for the recipe's own.
        epochs: Epochs of the training. Empty for the recipe's own.
        seed: Seed of initialisation, batches, dropout and masks.
        workers: Processes that train together. Empty for the recipe's own.
        recipe: Whose other settings of the training to use.
        force: Train it again from the start, even where its result is there.
        overrides: Any other setting as KEY=VALUE, for example
            train.optimizer.learning_rate=5e-4.
        runs: Root of all results, a path or an s3:// address.
    """
    check_stage("train", overrides, OVERRIDES)
    chosen = chosen_recipe(
        recipe, Choices((model,), size, epochs, (seed,), workers), ["sweep=null", *overrides]
    )
    if len(chosen.trainings) != 1:
        raise PipelineError("overrides: this form trains one model; name no seeds and no sweep")
    return train_flow.fn(
        chosen.trainings[0], features, runs, chosen.workers, force, chosen.tracking
    )


@flow(name="stage-evaluate", persist_result=False, flow_run_name=_name("evaluate"))
def evaluate_form(
    models: tuple[str, ...],
    features: str,
    recipe: RecipeChoice = "demo",
    force: bool = False,
    overrides: tuple[Override, ...] = (),
    runs: str = "runs",
) -> StageResult:
    """Compare trained models on finished features, or find them compared.

    Args:
        models: Addresses of finished trainings, in the order of the comparison: the runs that
            made them show them under Artifacts.
        features: Address of the finished (aligned) features to score on.
        recipe: Whose settings of this stage to use.
        force: Do it again, even where its result is there.
        overrides: Any setting as KEY=VALUE, for example evaluate.split=dev.
        runs: Root of all results, a path or an s3:// address.
    """
    check_stage("evaluate", overrides, OVERRIDES)
    chosen = chosen_recipe(recipe, Choices(), overrides)
    check_search_settings(chosen.evaluate.search_of, overrides, OVERRIDES)
    return evaluate_flow.fn(
        chosen.evaluate, list(models), features, runs, force, chosen.tracking, chosen.fan_out
    )
