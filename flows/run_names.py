"""Names of runs: what a person typed, else what tells a run from others."""

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from coolname.data import config
from prefect.context import FlowRunContext

from flows.form import Choices
from training.train_config import TrainConfig

_MOST_OVERRIDES = 2

# What the form of the UI proposes: an adjective and an animal, both capitalised.
_OF_THE_FORM = re.compile(r"[A-Z][a-z]+-[A-Z][a-z]+")


@cache
def _words_of_names() -> frozenset[str]:
    """The words that Prefect's server makes names of."""
    parts: Any = config
    return frozenset(
        word
        for part in parts.values()
        for entry in (*part.get("words", ()), *part.get("phrases", ()))
        for word in (entry.split() if isinstance(entry, str) else entry)
    )


def is_proposed(name: str) -> bool:
    """Whether Prefect made a name up, rather than a person."""
    words = name.split("-")
    made_up = len(words) == 2 and _words_of_names().issuperset(words)
    return made_up or _OF_THE_FORM.fullmatch(name) is not None


def run_name(describe: Callable[..., str]) -> Callable[[], str]:
    """A ``flow_run_name`` that keeps what a person typed.

    Args:
        describe: names a run from its flow's parameters, given by their names.
    """

    def name() -> str:
        context = FlowRunContext.get()
        assert context is not None
        given = context.flow_run.name if context.flow_run is not None else None
        if given and not is_proposed(given):
            return given
        parameters: dict[str, Any] = context.parameters or {}
        return describe(**parameters)

    return name


def training_name(training: TrainConfig) -> str:
    """A training: its model, layers and size, and seed."""
    model = training.model
    return f"train {model.spec.name} {model.num_layers}x{model.hidden_size} seed {training.seed}"


def chosen_name(recipe: str, choices: Choices, overrides: Sequence[str] = ()) -> str:
    """A run of a recipe: the recipe, and what a person chose to be otherwise."""
    parts = [recipe, *choices.models]
    if choices.size is not None:
        parts.append(f"size {choices.size}")
    if choices.epochs is not None:
        parts.append(f"{choices.epochs} epochs")
    if choices.seeds:
        parts.append(f"seed {','.join(map(str, choices.seeds))}")
    more = overrides[_MOST_OVERRIDES:]
    parts += [*overrides[:_MOST_OVERRIDES], *([f"and {len(more)} more"] if more else [])]
    return " ".join(parts)
