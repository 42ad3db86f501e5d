"""What the forms of the deployments are filled with: the recipes, read when they are registered.

Both functions are steps of ``prefect deploy``, so that ``prefect.yaml`` needs no copy of a recipe
that could fall behind it.
"""

from typing import Any

from flows.recipes import RECIPES


def recipes() -> dict[str, Any]:
    """Every recipe, as ``{{ recipes.NAME }}``."""
    return {name: recipe.model_dump(mode="json") for name, recipe in RECIPES.items()}


def trainings() -> dict[str, Any]:
    """Every recipe's trainings, as ``{{ trainings.NAME.MODEL }}``: templates take no list item."""
    return {
        name: {config.model.model: config.model_dump(mode="json") for config in recipe.models}
        for name, recipe in RECIPES.items()
    }
