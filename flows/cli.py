"""The ``spikeline`` command line.

Imports of the stages stand inside the commands, so that help, lists and mistakes come at once.
"""

import contextlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from flows.corpus_cli import corpus_app
from flows.failures import INTERRUPT_EXIT_CODE, MISTAKE_EXIT_CODE, explain, one_line
from flows.finished_cli import FINISHED, finished_app
from flows.help_text import EXAMPLES, SpikelineCommand, SpikelineGroup, listed
from flows.hub_cli import hub_app
from flows.options import (
    CorpusOption,
    FeaturesOption,
    ForceOption,
    FrontChoice,
    JsonOption,
    RecipeOption,
    RunsOption,
    SetOption,
    WorkersOption,
    grouped,
)
from flows.surroundings import interrupt_on_hangup, open_closed_streams, settle_environment

# Groups of commands in the help.
WHOLE, ONE = "From speech to a comparison: begin with demo", "One stage of it"

app = typer.Typer(
    name="spikeline",
    cls=SpikelineGroup,
    help="Train spiking speech recognisers and count what their sparsity saves.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(corpus_app, name="corpus", rich_help_panel=WHOLE)
app.add_typer(finished_app)
app.add_typer(hub_app, name="hub", rich_help_panel=FINISHED)
align_app = typer.Typer(cls=SpikelineGroup, epilog=f"Example: spikeline align {EXAMPLES['align']}")
app.add_typer(align_app, name="align", rich_help_panel=ONE)

# Click's base of all mistakes in the arguments; typer carries a copy of Click of its own.
_USAGE_ERROR: type[Exception] = next(
    cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException"
)

_COMPLETING = "_SPIKELINE_COMPLETE"
"""Set by the shell that asks for completions."""

_INTERRUPTED = (
    "interrupted; finished stages and epochs are kept, the same command goes on from there"
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"spikeline {importlib.metadata.version('spikeline')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train spiking speech recognisers and count what their sparsity saves."""


@listed(app, "recipes", WHOLE)
def recipes(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[show] [NAME]",
            help="Recipe to explain; without one, all as a table. With show, one as a file to "
            "edit, for --recipe.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the recipes, explain one, or write one to edit."""
    from flows.recipe_commands import list_recipes, show_recipe

    match names or []:
        case ["show", name]:
            show_recipe(name)
        case [] | [_] as chosen:
            list_recipes(chosen[0] if chosen else None, as_json)
        case _:
            raise typer.BadParameter("give one recipe, or show and one recipe")


@listed(app, "demo", WHOLE)
def demo(
    runs: RunsOption = "demo-runs",
    overrides: SetOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the whole pipeline on synthetic speech."""
    from flows.stage_commands import run_pipeline

    run_pipeline("demo", None, runs, overrides or (), workers, as_json)


@listed(app, "featurize", ONE)
def featurize(
    recipe: RecipeOption,
    corpus: CorpusOption,
    runs: RunsOption,
    overrides: SetOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Turn a corpus into feature shards."""
    from flows.stage_commands import run_featurize

    run_featurize(recipe, corpus, runs, overrides or (), force, as_json)


@align_app.callback(invoke_without_command=True)
def align(
    context: typer.Context,
    recipe: Annotated[str | None, typer.Option(help="Recipe; see spikeline recipes.")] = None,
    features: Annotated[
        str | None, typer.Option(help="A finished feature set: path or s3://.")
    ] = None,
    runs: Annotated[str | None, typer.Option(help="Root of all results: path or s3://.")] = None,
    overrides: SetOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find the phone of each frame from transcripts and lexicon."""
    if context.invoked_subcommand is not None:
        return
    for name, value in (("recipe", recipe), ("features", features), ("runs", runs)):
        if value is None:
            context.fail(f"Missing option '--{name}'.")
    from flows.stage_commands import run_align

    assert recipe is not None
    assert features is not None
    assert runs is not None
    run_align(recipe, features, runs, overrides or (), force, as_json)


@align_app.command(
    "compare", epilog="Example: spikeline align compare runs/align/FP /data/mfa-textgrids"
)
def align_compare(
    first: Annotated[
        str,
        typer.Argument(
            help="Alignment to judge: an aligned feature set, or a folder of TextGrids or .PHN."
        ),
    ],
    second: Annotated[str, typer.Argument(help="The same, of what it is held against.")],
    phn_rate: Annotated[
        int, typer.Option(min=1, help="Samples per second that .PHN counts in.")
    ] = 16000,
    as_json: JsonOption = False,
) -> None:
    """Say how far the boundaries of two alignments lie apart."""
    from flows.align_compare_command import run_compare

    run_compare(first, second, phn_rate, as_json)


@listed(app, "import-kaldi", ONE)
def import_kaldi(
    config: Annotated[
        str, typer.Option("--config", help="JSON file that names data folders and alignments.")
    ],
    runs: RunsOption,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take features and tied-state targets from Kaldi.

    The file names the table of phones, and of each subset its split, its data folder (feats.scp,
    utt2spk; text and utt2dur if they are there) and the folder of its alignment (ali.*.gz,
    final.mdl); examples/kaldi.json is one. Relative paths begin where the command is started.
    """
    from flows.stage_commands import run_import_kaldi

    run_import_kaldi(config, runs, force, as_json)


@listed(app, "train", ONE)
def train(
    recipe: RecipeOption,
    features: FeaturesOption,
    runs: RunsOption,
    model_name: Annotated[
        list[str] | None,
        typer.Option("--model-name", help="Train this model of the recipe alone; repeatable."),
    ] = None,
    workers: WorkersOption = None,
    overrides: SetOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the recipe's models on a feature set."""
    from flows.stage_commands import run_train

    chosen = [f"models={','.join(model_name)}"] if model_name else []
    run_train(recipe, features, runs, [*(overrides or ()), *chosen], workers, force, as_json)


@listed(app, "evaluate", ONE)
def evaluate(
    model: Annotated[
        list[str], typer.Option("--model", help="A finished training run; repeatable.")
    ],
    features: Annotated[
        str | None,
        typer.Option("--features", help="A finished feature set: path or s3://; this or --corpus."),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            "--corpus",
            help="Another corpus, path or s3://: featurized as the models' own was, and searched "
            "as their last evaluation chose.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="Recipe whose evaluation it is; the defaults where none."),
    ] = None,
    runs: Annotated[
        str | None,
        typer.Option("--runs", help="Root of all results; where the first model is by default."),
    ] = None,
    overrides: SetOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare trained models, on their corpus or another."""
    from flows.stage_commands import ScoredSpeech, run_evaluate

    run_evaluate(
        recipe, model, ScoredSpeech(features, corpus), runs, overrides or (), force, as_json
    )


@listed(app, "pipeline", WHOLE)
def pipeline(
    recipe: RecipeOption,
    corpus: CorpusOption,
    runs: RunsOption,
    workers: WorkersOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe on a corpus, every stage that is not finished."""
    from flows.stage_commands import run_pipeline

    run_pipeline(recipe, corpus, runs, overrides or (), workers, as_json)


@listed(app, "front", WHOLE)
@grouped
def front(
    corpus: CorpusOption,
    runs: RunsOption,
    chosen: FrontChoice,
    found: Annotated[
        bool, typer.Option("--found", help="Train nothing: score and draw what is trained.")
    ] = False,
    record: Annotated[
        str | None,
        typer.Option("--record", help="Write the page to this file, plots and CSV beside it."),
    ] = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare families of models at equal multiplications."""
    from flows.front_command import run_front

    run_front(corpus, runs, chosen, overrides or (), record, found_only=found, as_json=as_json)


for group in (app, finished_app, corpus_app, align_app, hub_app):
    for registered in group.registered_commands:
        registered.cls = SpikelineCommand


def main() -> None:
    """Entry point of the ``spikeline`` script."""
    open_closed_streams()
    interrupt_on_hangup()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line; errors become one line on stderr.

    Returns:
        0; 2 for a mistake a person can mend; 130 when interrupted; 1 for a bug.
    """
    # Where nothing was typed, help is no result; a shell that completes what is typed reads stdout.
    nothing_typed = list(arguments) in ([], ["corpus"]) and _COMPLETING not in os.environ
    shown_on = contextlib.redirect_stdout(sys.stderr) if nothing_typed else contextlib.nullcontext()
    try:
        settle_environment()
        with shown_on:
            code = app(args=list(arguments), prog_name="spikeline", standalone_mode=False)
    except _USAGE_ERROR as error:
        return _explain_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        return _fail(_INTERRUPTED, INTERRUPT_EXIT_CODE)
    except Exception as error:
        return _fail(*explain(error))
    if code == INTERRUPT_EXIT_CODE:  # typer turns an interrupt into this
        return _fail(_INTERRUPTED, INTERRUPT_EXIT_CODE)
    return code if isinstance(code, int) else 0


def _explain_usage(error: Any) -> int:
    """Say what was typed wrongly; help alone where nothing was typed."""
    if type(error).__name__ == "NoArgsIsHelpError":  # which has printed it
        return MISTAKE_EXIT_CODE
    path = error.ctx.command_path if getattr(error, "ctx", None) is not None else "spikeline"
    message = error.format_message().rstrip(".").replace(". Did you", "; did you")
    see = " See" if message.endswith("?") else "; see"
    return _fail(f"{message}{see} {path} --help", MISTAKE_EXIT_CODE)


def _fail(message: str, code: int) -> int:
    from rich.console import Console
    from rich.text import Text

    from flows.terminal import print_line

    print_line(Console(stderr=True, highlight=False), Text(f"spikeline: {one_line(message)}"))
    return code


if __name__ == "__main__":
    main()
