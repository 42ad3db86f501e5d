"""The commands with finished results: the event-driven engine, and what checks results."""

from typing import Annotated

import typer

from flows.help_text import listed
from flows.options import (
    EngineSource,
    EvaluationOption,
    FrontEndOption,
    JsonOption,
    Listening,
    ResultArgument,
    SymbolsOption,
    WorkersOption,
    grouped,
)

FINISHED = "With finished results"
finished_app = typer.Typer()


@listed(finished_app, "transcribe", FINISHED)
@grouped
def transcribe(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Audio of any format soundfile reads: paths, s3:// addresses, or - for standard "
            "input."
        ),
    ] = None,
    *,
    source: EngineSource,
    listening: Listening,
    microphone: Annotated[
        bool,
        typer.Option(
            "--microphone", help="Listen to this machine's microphone until Ctrl-C, as --stream."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Recognise speech with the event-driven engine.

    A model trained on features normalised by speaker takes each file's own mean and deviation, as
    if it were all that its speaker said; of a microphone they are estimated as it is heard.
    """
    from flows.event_driven_commands import run_transcribe
    from flows.microphone_command import run_microphone

    if microphone == bool(files):
        raise typer.BadParameter("give files, or --microphone")
    if microphone:
        if listening.nbest or listening.one_speaker:
            raise typer.BadParameter("--nbest and --one-speaker are of files, not of a microphone")
        run_microphone(source, find_words=not listening.symbols, as_json=as_json)
    else:
        run_transcribe(source, files or (), listening, as_json)


@listed(finished_app, "serve", FINISHED)
@grouped
def serve(
    source: EngineSource,
    host: Annotated[
        str, typer.Option(help="Address to listen at; one that others reach asks them for a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for a free one.", min=0, max=65535)] = 8765,
    max_streams: Annotated[
        int, typer.Option(help="Streams and files at once.", min=1, max=10_000)
    ] = 64,
    max_seconds: Annotated[
        int, typer.Option(help="Longest stream or file, in seconds.", min=1)
    ] = 600,
    symbols: SymbolsOption = False,
) -> None:
    """Recognise speech for clients: a page, WebSocket, HTTP.

    The environment variable SPIKELINE_TOKEN sets the token that clients need.
    """
    from evaluation.serve.limits import ServeLimits
    from flows.serve_command import run_serve

    limits = ServeLimits(max_streams=max_streams, max_stream_s=max_seconds)
    run_serve(source, (host, port), limits, find_words=not symbols)


@listed(finished_app, "export", FINISHED)
def export(
    model: Annotated[str, typer.Option("--model", help="A finished training run.")],
    out: Annotated[str, typer.Option("--out", help="File or folder to write: path or s3://.")],
    file_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="engine (torch-free); onnx, a step with the engine's own order of sums, so that "
            "its spikes and scores are the engine's; nir, where it has the nodes; or folder, a "
            "model to give away: weights, engine and card.",
        ),
    ] = "engine",
    features: FrontEndOption = None,
    evaluation: EvaluationOption = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit weights of the engine (engine, folder).")
    ] = False,
    about: Annotated[
        str | None,
        typer.Option(
            "--about", help="File of the card's part on data, licence and limits (--format folder)."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a spiking model for something else to run."""
    from flows.event_driven_commands import run_export

    source = EngineSource(model, features, evaluation, int8)
    run_export(source, out, file_format, as_json, about)


@listed(finished_app, "verify", FINISHED)
def verify(location: ResultArgument, as_json: JsonOption = False) -> None:
    """Check finished results, every byte of them."""
    from flows.integrity_commands import run_verify

    run_verify(location, as_json)


@listed(finished_app, "repair", FINISHED)
def repair(
    location: ResultArgument,
    corpus: Annotated[
        str | None, typer.Option("--corpus", help="Where the corpus is now, if it was moved.")
    ] = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Redo what is broken in finished results."""
    from flows.integrity_commands import run_repair

    run_repair(location, corpus, workers, as_json)
