"""The commands of ``spikeline corpus``; what they do stands in ``flows.corpus_commands``."""

from typing import Annotated

import typer

from flows.help_text import SpikelineGroup
from flows.options import JsonOption, SetOption

corpus_app = typer.Typer(
    cls=SpikelineGroup, help="Look at a corpus, or make one.", no_args_is_help=True
)


@corpus_app.command(
    "synthesize", epilog="Example: spikeline corpus synthesize speech --minutes 30 --layout timit"
)
def corpus_synthesize(
    out: Annotated[str, typer.Argument(help="Folder to write.")],
    layout: Annotated[
        str, typer.Option(help="Corpus layout: librispeech or timit.", metavar="LAYOUT")
    ] = "librispeech",
    minutes: Annotated[float, typer.Option(help="Speech, minutes.")] = 30.0,
    seed: Annotated[int, typer.Option(help="Seed of sentences and voices.")] = 0,
    speakers: Annotated[int, typer.Option(help="Speakers.")] = 40,
    as_json: JsonOption = False,
) -> None:
    """Write a corpus of synthetic read speech."""
    from flows.recipe_commands import synthesize

    synthesize(out, layout, minutes, seed, speakers, as_json)


@corpus_app.command("check", epilog="Example: spikeline corpus check recordings")
def corpus_check(
    corpus: Annotated[str, typer.Argument(metavar="ROOT", help="Root of a corpus: path or s3://.")],
    reader: Annotated[
        str | None,
        typer.Option("--reader", help="How it is laid out; found out where it is not said."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help="Check the subsets and labels of this recipe; else all subsets, for their "
            "characters.",
        ),
    ] = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what would be read, how long it is, and what would be rejected; makes nothing."""
    from flows.corpus_commands import run_check

    run_check(corpus, reader, recipe, overrides or (), as_json)


@corpus_app.command("split", epilog="Example: spikeline corpus split recordings/speech.csv")
def corpus_split(
    table: Annotated[str, typer.Argument(help="CSV or JSON lines with audio and text.")],
    dev: Annotated[
        float, typer.Option("--dev", help="Share for dev, by which settings are chosen.")
    ] = 0.1,
    test: Annotated[
        float, typer.Option("--test", help="Share for test, on which errors are counted.")
    ] = 0.1,
    seed: Annotated[
        int, typer.Option("--seed", help="Seed of the draw: another gives other subsets.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Deal one table of utterances to train, dev and test, by speaker where there are enough."""
    from flows.corpus_commands import run_split

    run_split(table, dev, test, seed, as_json)


@corpus_app.command(
    "download", epilog="Example: spikeline corpus download /data train-clean-100 dev-clean"
)
def corpus_download(
    target: Annotated[str, typer.Argument(help="Folder to write LibriSpeech into.")],
    subsets: Annotated[list[str], typer.Argument(help="Subsets of LibriSpeech.")],
    as_json: JsonOption = False,
) -> None:
    """Fetch subsets of LibriSpeech, checked against their SHA-256."""
    from flows.corpus_commands import run_download

    run_download(target, subsets, as_json)
