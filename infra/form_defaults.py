"""What the form of every setting is filled with: a recipe, read when deployments are registered.

A step of ``prefect deploy``, so that ``prefect.yaml`` needs no copy of a recipe that could fall
behind it.
"""

from typing import Any

from flows.recipes import RECIPES


def recipes() -> dict[str, Any]:
    """Every recipe, as ``{{ recipes.NAME }}``."""
    return {name: recipe.model_dump(mode="json") for name, recipe in RECIPES.items()}
