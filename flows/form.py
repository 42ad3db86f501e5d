"""What a person chooses in a form of the Prefect UI, and the recipe that follows from it.

Prefect makes a form from a flow's signature. These types say what its fields take, so that the
server refuses a wrong value before a run exists. None of them is a choice between a type and
nothing, which the form would show as two tabs: a field that may be left out has a default.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from flows.overrides import apply_overrides
from flows.recipes import RECIPES, Recipe, recipe_named
from training.models.model_config import ModelName
from training.train_config import CurriculumStage

RecipeChoice = Annotated[str, WithJsonSchema({"type": "string", "enum": list(RECIPES)})]
"""The name of a recipe, chosen from a list."""

Size = Annotated[int, Field(ge=1, le=8192)] | SkipJsonSchema[None]
"""Neurons per layer, or nothing for the recipe's own."""

Count = Annotated[int, Field(ge=1)] | SkipJsonSchema[None]
"""A number from 1, or nothing for the recipe's own."""

Seed = Annotated[int, Field(ge=0)]

OVERRIDES = "overrides: "
"""What stands before an override in a message."""

Override = Annotated[str, Field(pattern=r".+=.*")]
"""``key=value``, as ``--set`` takes it."""


@dataclass(frozen=True)
class Choices:
    """What a form changes of a recipe; empty where the recipe's own stands."""

    models: Sequence[ModelName] = ()  # names of the models to train
    size: int | None = None  # neurons per recurrent layer, of every model
    epochs: int | None = None  # epochs of every model's training
    seeds: Sequence[int] = ()  # seeds to train each model with
    workers: int | None = None


def chosen_recipe(name: str, choices: Choices, overrides: Sequence[str]) -> Recipe:
    """The named recipe with a form's choices, and over them its overrides."""
    recipe = recipe_named(name)
    return apply_overrides(recipe, [*_assignments(recipe, choices), *overrides], OVERRIDES)


def _assignments(recipe: Recipe, choices: Choices) -> Iterator[str]:
    if choices.models:
        yield f"models={','.join(choices.models)}"
    if choices.size is not None:
        yield f"train.model.hidden_size={choices.size}"
    if choices.epochs is not None:
        stages = of_epochs(recipe.models[0].curriculum, choices.epochs)
        yield f"train.curriculum={json.dumps([stage.model_dump() for stage in stages])}"
    if choices.seeds:
        yield f"seeds={json.dumps(list(choices.seeds))}"
    if choices.workers is not None:
        yield f"workers.num_workers={choices.workers}"
        yield "workers.in_process=false"


def of_epochs(
    curriculum: Sequence[CurriculumStage], num_epochs: int
) -> tuple[CurriculumStage, ...]:
    """A curriculum's stages shared out over another number of epochs.

    Every stage keeps its part of the whole, rounded; one that has none left is dropped.
    """
    total = sum(stage.num_epochs for stage in curriculum)
    stages, before, done = [], 0, 0
    for stage in curriculum:
        before += stage.num_epochs
        until = round(before * num_epochs / total)
        if until > done:
            stages.append(stage.model_copy(update={"num_epochs": until - done}))
        done = until
    return tuple(stages)
