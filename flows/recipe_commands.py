"""The commands that need no Prefect: listing recipes, synthesising a corpus."""

import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from featurize.corpora.synthetic import Layout, SyntheticConfig, SyntheticSummary, synthesize_corpus
from featurize.stage import Location, PipelineError
from flows import terminal
from flows.command import command
from flows.recipe_file import recipe_text
from flows.recipes import RECIPES, Recipe, recipe_named
from flows.suggestions import did_you_mean

_LOGGER = logging.getLogger(__name__)

_MOST_CHARACTERS = 90
"""Of a recipe's line in the table."""

LAYOUTS = ("librispeech", "timit")


def show_recipe(name: str) -> None:
    """Print a recipe as a file to edit."""
    sys.stdout.write(recipe_text(recipe_named(name)))


def list_recipes(name: str | None, as_json: bool) -> None:
    """Print all recipes as a table, or one with all that is to say of it."""
    shown = list(RECIPES.values()) if name is None else [recipe_named(name)]
    with command(as_json) as running:
        running.finish(
            {"recipes": [recipe.model_dump(mode="json") for recipe in shown]},
            *(_table(shown) if name is None else _described(shown[0])),
        )


def _table(recipes: Sequence[Recipe]) -> list[RenderableType]:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for title in ("recipe", "what it trains, on what"):
        table.add_column(title, no_wrap=title == "recipe")
    table.add_column("trainings", justify="right")
    table.add_column("epochs", justify="right")
    for recipe in recipes:
        what = re.sub(r" ?\([^)]*\)", "", recipe.explanation).partition(". ")[0].rstrip(".")
        if len(what) > _MOST_CHARACTERS:
            what = re.split(r"[,:;](?=[^,:;]*$)", what[:_MOST_CHARACTERS])[0]
        epochs = max(config.num_epochs for config in recipe.models)
        table.add_row(recipe.name, what, str(len(recipe.trainings)), str(epochs))
    said = "One in full: spikeline recipes NAME; to edit: spikeline recipes show NAME"
    return [table, Text(said)]


def _described(recipe: Recipe) -> list[RenderableType]:
    differences = Table.grid(padding=(0, 1))
    for line in recipe.deviations:
        differences.add_row("  -", Text(line))
    first = recipe.models[0]
    sizes = f"{first.model.num_layers} layers of {first.model.hidden_size}"
    return [
        Text(recipe.name, style="bold"),
        Text(recipe.explanation),
        Text(_trained(recipe)),
        Text(f"Each: {sizes}, {first.num_epochs} epochs, batches of {first.batch_size}."),
        Text("Differs from the paper:", style="bold"),
        differences,
        Text("Change a setting with --set, for example --set train.model.hidden_size=256"),
    ]


def _trained(recipe: Recipe) -> str:
    """Which models, how often."""
    said = f"Models: {', '.join(recipe.model_names)}"
    if recipe.sweep is not None:
        said += f"; {recipe.sweep.model} in several settings"
    if recipe.seeds:
        several = ", ".join(recipe.seeded_models) or "all"
        said += f"; {len(recipe.seeds)} seeds ({several})"
    count = len(recipe.trainings)
    return said + (f": {count} trainings." if count > len(recipe.models) else ".")


def synthesize(
    out: str, layout: str, minutes: float, seed: int, speakers: int, as_json: bool
) -> None:
    """Write a synthetic corpus and say where it is and how to use it."""
    if layout not in LAYOUTS:
        raise PipelineError(
            f"no layout {layout!r}{did_you_mean(layout, LAYOUTS)}; layouts: {', '.join(LAYOUTS)}"
        )
    root = Location.of(out)
    if not root.is_local:
        raise PipelineError(f"{out}: write the corpus to a local folder, then copy it to S3")
    with command(as_json) as running:
        config = SyntheticConfig(
            layout=cast(Layout, layout), minutes=minutes, seed=seed, num_speakers=speakers
        )
        summary = synthesize_with_bar(Path(root.path), config)
        running.finish(
            {"location": root.uri, **summary.model_dump(mode="json")},
            f"{sum(summary.minutes.values()):.1f} minutes of speech at {root}",
            f"next: spikeline pipeline --recipe NAME --corpus {root} --runs runs",
        )


def synthesize_with_bar(target: Path, config: SyntheticConfig) -> SyntheticSummary:
    """Write the corpus, or find it there."""
    with terminal.bar("synthesising speech") as bar:
        return synthesize_corpus(
            target,
            config,
            progress=lambda done, total: bar.update(done / total, f"{done}/{total} speakers"),
        )


def synthesize_below(runs: Location, recipe: Recipe) -> Path:
    """Write the recipe's own corpus to ``<runs>/corpus``, or find it there."""
    if recipe.synthetic is None:
        raise PipelineError(
            f"corpus: recipe {recipe.name} has no synthetic one; name the root of a corpus, or set "
            "synthetic"
        )
    if not runs.is_local:
        raise PipelineError(
            f"runs={runs}: a synthetic corpus is written to a local folder; name the root of a "
            "corpus, or a local folder for runs"
        )
    corpus = Path(runs.path) / "corpus"
    summary = synthesize_with_bar(corpus, recipe.synthetic)
    minutes = sum(summary.minutes.values())
    _LOGGER.info("%-12s %.0f minutes of synthetic speech: %s", "corpus", minutes, corpus)
    return corpus
