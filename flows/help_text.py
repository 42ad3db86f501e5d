"""How the help of the command line reads: what an option takes, in words, and examples."""

from collections.abc import Callable
from typing import Any, TypeVar

from typer import Typer
from typer.core import TyperCommand, TyperGroup

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

EXAMPLES = {
    "recipes": "mini-librispeech",
    "demo": "--runs demo-runs",
    "featurize": "--recipe timit --corpus /data/TIMIT --runs runs",
    "align": "--recipe timit --features runs/featurize/FP --runs runs",
    "import-kaldi": "--config kaldi.json --runs runs",
    "train": "--recipe timit --features runs/align/FP --runs runs --model-name v2",
    "evaluate": "--recipe timit --model runs/training/FP --features runs/align/FP --runs runs",
    "front": "--corpus /data/LibriSpeech --runs runs --family v3 --family gru --budget 17",
    "pipeline": "--recipe timit --corpus /data/TIMIT --runs runs --set models=v2,gru",
    "verify": "runs",
    "repair": "runs",
    "transcribe": "--model runs/training/FP --stream speech.flac",
    "serve": "--model runs/training/FP",
    "export": "--model runs/training/FP --format onnx --out v2.onnx",
}
"""What follows the name of each command, as a person would type it."""


def listed(app: Typer, name: str, group: str) -> Callable[[FunctionT], FunctionT]:
    """A command with its group in the help, and an example below its own."""
    decorate: Callable[[FunctionT], FunctionT] = app.command(
        name, rich_help_panel=group, epilog=f"Example: spikeline {name} {EXAMPLES[name]}"
    )
    return decorate


_TAKES = {str: "TEXT", int: "N", float: "N"}


def _in_words(params: list[Any]) -> list[Any]:
    """Options with what they take in words, in place of Python's types; a switch takes nothing."""
    for param in params:
        if param.param_type_name == "argument":
            param.display_type_rich = lambda ctx: ""
        elif param.metavar is None:
            kind = param.type_descriptor.annotation
            param.metavar = "" if param.is_flag else _TAKES.get(kind, "TEXT")
    return params


class SpikelineCommand(TyperCommand):
    """A command whose help says what its options take."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Typer's, each with what it takes."""
        return _in_words(super().get_params(ctx))


class SpikelineGroup(TyperGroup):
    """Commands, with the same help."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Typer's, each with what it takes."""
        return _in_words(super().get_params(ctx))
