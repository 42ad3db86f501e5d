"""What ``spikeline bench scaling`` runs: a recipe's stages, on the subsets that a corpus has."""

from collections.abc import Sequence
from dataclasses import dataclass

from featurize.config import SplitsConfig
from featurize.stage import Location, PipelineError
from flows.embedded_server import PrefectApi
from flows.overrides import configured
from flows.recipes import Recipe
from flows.scaling.costs import Workload
from flows.scaling.result import ScaledStages, ScalingConfig

_MIN_FRAMES = 10


@dataclass(frozen=True)
class ScalingSetup:
    """What is measured, and what is projected."""

    stages: ScaledStages
    work: Workload
    config: ScalingConfig


def pick_subsets(recipe: Recipe, corpus: Location) -> SplitsConfig:
    """The recipe's subsets where the corpus has them, else those it has, by their names.

    Raises:
        PipelineError: when it has none for a split.
    """
    if recipe.featurize.corpus == "timit":
        return recipe.featurize.splits
    present = {child.name for child in corpus.children()}
    chosen: dict[str, tuple[str, ...]] = {}
    for split, wanted in recipe.featurize.splits.as_dict().items():
        own = tuple(name for name in wanted if name in present)
        alike = tuple(sorted(name for name in present if name.startswith(f"{split}-")))
        if not own and not alike:
            raise PipelineError(
                f"{corpus} has no subset for {split}: neither of {', '.join(wanted)}, nor a folder "
                f"{split}-NAME"
            )
        chosen[split] = own or alike
    return SplitsConfig(**chosen)


def scaling_setup(recipe: Recipe, splits: SplitsConfig, overrides: Sequence[str]) -> ScalingSetup:
    """Stages of a recipe, cut down to what is measured.

    Raises:
        PipelineError: when the recipe does not align, or lacks the model.
    """
    config = configured(ScalingConfig(), overrides)
    if recipe.align is None:
        raise PipelineError(
            f"recipe {recipe.name} has no align stage to measure; use one that aligns, "
            "such as librispeech-100h"
        )
    found = [training for training in recipe.models if training.model.model == config.model]
    if not found:
        raise PipelineError(
            f"recipe {recipe.name} has no {config.model}; set model to one of "
            f"{', '.join(recipe.model_names)}"
        )
    featurize = recipe.featurize.model_copy(
        update={"splits": splits, "utterances_per_shard": config.utterances_per_shard}
    )
    # Few utterances grow as many states as the recipe's thousands only where few frames make one.
    targets = recipe.align.targets.model_copy(update={"min_frames": _MIN_FRAMES})
    align = recipe.align.model_copy(
        update={
            "targets": targets,
            "num_estimation_utterances": config.num_estimation_utterances,
        }
    )
    # Words depend on a language model, and the time curve is a benchmark of its own.
    evaluate = recipe.evaluate.model_copy(update={"words": None, "time_curve": False})
    return ScalingSetup(
        stages=ScaledStages(featurize=featurize, align=align, train=found[0], evaluate=evaluate),
        work=Workload(
            utterances_per_shard=recipe.featurize.utterances_per_shard,
            num_estimation_utterances=recipe.align.num_estimation_utterances,
            curriculum=found[0].curriculum,
            batch_size=found[0].batch_size,
            frame_shift_s=featurize.stored_frame_shift_s,
        ),
        config=config,
    )


def time_prefect(api: PrefectApi, number: int) -> float:
    """Seconds of each of so many task runs."""
    api.ready()
    # Prefect takes seconds to import, and nothing else here needs it.
    from flows.scaling.task_runs import time_task_runs

    return time_task_runs(number)
