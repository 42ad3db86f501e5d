"""The options that several commands take."""

from typing import Annotated

import typer

RecipeOption = Annotated[
    str, typer.Option("--recipe", help="Recipe: see spikeline recipes; or a YAML file of your own.")
]
CorpusOption = Annotated[str, typer.Option("--corpus", help="Root of the corpus: path or s3://.")]
FeaturesOption = Annotated[
    str, typer.Option("--features", help="A finished feature set: path or s3://.")
]
RunsOption = Annotated[str, typer.Option("--runs", help="Root of all results: path or s3://.")]
EngineOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="A training run (path or s3://), an exported engine, or a folder of export or pull; "
        "the small English model that comes with spikeline where none is named.",
    ),
]
FrontEndOption = Annotated[
    str | None,
    typer.Option("--features", help="Feature set to take the front end from; the run's own."),
]
EightBitsOption = Annotated[bool, typer.Option("--int8", help="8-bit weights (of a training run).")]
EvaluationOption = Annotated[
    str | None,
    typer.Option(
        "--evaluation",
        help="Finished evaluation whose search is used: its weights, lexicon and language model; "
        "the model's newest one where none is named.",
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
