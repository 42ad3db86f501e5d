"""The options that several commands take, alone or in groups.

A group is a frozen dataclass: a command that is ``grouped`` has one as a parameter, and on the
command line its fields as options.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

ENGINE_SUFFIX = ".spikes"

RecipeOption = Annotated[
    str, typer.Option("--recipe", help="Recipe: see spikeline recipes; or a YAML file of your own.")
]
CorpusOption = Annotated[str, typer.Option("--corpus", help="Root of the corpus: path or s3://.")]
FeaturesOption = Annotated[
    str, typer.Option("--features", help="A finished feature set: path or s3://.")
]
RunsOption = Annotated[str, typer.Option("--runs", help="Root of all results: path or s3://.")]
FrontEndOption = Annotated[
    str | None,
    typer.Option("--features", help="Feature set to take the front end from; the run's own."),
]
SymbolsOption = Annotated[
    bool, typer.Option("--symbols", help="Find symbols where there are words too.")
]
ResultArgument = Annotated[
    str, typer.Argument(metavar="URI", help="A stage's result, or a runs folder.")
]
EvaluationOption = Annotated[
    str | None,
    typer.Option(
        "--evaluation",
        help="Finished evaluation whose search is used: its weights, lexicon and language model; "
        "the newest that chose its search on dev where none is named, one with words first.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe; repeatable."),
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="Training workers (Ray).")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Do it again even if it is done.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")
]


@dataclass(frozen=True)
class EngineSource:
    """What an engine is made of."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="A training run (path or s3://), an exported engine, or a folder of export or "
            "pull; the small English model that comes with spikeline where none is named.",
        ),
    ] = None
    features: FrontEndOption = None
    evaluation: EvaluationOption = None
    int8: Annotated[bool, typer.Option("--int8", help="8-bit weights (of a training run).")] = False

    @property
    def address(self) -> str:
        """Of the model."""
        from evaluation.published import shipped_model

        return self.model or shipped_model().uri

    @property
    def is_file(self) -> bool:
        """Whether it is an exported engine."""
        return self.address.endswith(ENGINE_SUFFIX) or Path(self.address).is_file()

    def named(self) -> tuple[str, ...]:
        """Options beside the model that were given."""
        given = {
            "--features": self.features is not None,
            "--evaluation": self.evaluation is not None,
            "--int8": self.int8,
        }
        return tuple(option for option, is_given in given.items() if is_given)

    @property
    def precision(self) -> Literal["float32", "int8"]:
        """Of the weights."""
        return "int8" if self.int8 else "float32"


@dataclass(frozen=True)
class Listening:
    """How files are recognised."""

    symbols: SymbolsOption = False
    stream: Annotated[
        bool, typer.Option("--stream", help="Print the hypothesis as it grows, on stderr.")
    ] = False
    one_speaker: Annotated[
        bool,
        typer.Option(
            "--one-speaker",
            help="The files are all of one speaker: a model trained on features normalised by "
            "speaker takes the mean and deviation of all together, in place of each file's own.",
        ),
    ] = False
    nbest: Annotated[
        int,
        typer.Option(
            "--nbest",
            help="Print so many hypotheses of each file, with how far behind the best they score; "
            "as JSON with the confidence of every word.",
            min=0,
            max=1000,
        ),
    ] = 0


@dataclass(frozen=True)
class FrontChoice:
    """What of the front is trained; where nothing is named, all."""

    family: Annotated[
        list[str] | None, typer.Option("--family", help="Train this family alone; repeatable.")
    ] = None
    budget: Annotated[
        list[float] | None,
        typer.Option(
            "--budget",
            help="Train this budget alone, in millions of multiplications per second; repeatable.",
        ),
    ] = None
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="Train these seeds alone, such as 0,1.")
    ] = None


def grouped(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose groups of options are options of its own."""
    parameters = inspect.signature(function, eval_str=True).parameters
    groups: dict[str, Any] = {
        p.name: p.annotation for p in parameters.values() if is_dataclass(p.annotation)
    }

    @functools.wraps(function)
    def command(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        function(**given)

    flat: list[inspect.Parameter] = []
    for name, parameter in parameters.items():
        own = inspect.signature(groups[name]).parameters.values() if name in groups else [parameter]
        flat += [one.replace(kind=one.KEYWORD_ONLY) for one in own]
    command.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return command
