"""The command that serves a model to clients."""

import contextlib
import os
import secrets
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from featurize.stage import available_cores
from flows.command import command
from flows.event_driven_commands import load_engine, say_what_it_is
from flows.options import EngineSource

if TYPE_CHECKING:
    from evaluation.serve.limits import ServeLimits

_TOKEN_VARIABLE = "SPIKELINE_TOKEN"  # noqa: S105 - the variable's name


def run_serve(
    source: EngineSource, address: tuple[str, int], limits: "ServeLimits", *, find_words: bool
) -> None:
    """Serve a model by WebSocket and HTTP until interrupted."""
    from evaluation.engine.engine_file import write_engine
    from evaluation.engine.transcriber import Transcriber
    from evaluation.serve.app import RecognitionService
    from evaluation.serve.server import is_loopback, open_listener, serve
    from evaluation.serve.workers import Workers

    host, port = address
    token = os.environ.get(_TOKEN_VARIABLE) or None
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    with (
        contextlib.suppress(KeyboardInterrupt),
        _ended_by_sigterm(),
        command(as_json=False) as running,
        tempfile.TemporaryDirectory(prefix="spikeline-serve-") as folder,
        open_listener(host, port, limits) as listener,
    ):
        data = load_engine(source, find_words=find_words)
        say_what_it_is(source, data)
        Transcriber(data, find_words=find_words)  # says what an engine lacks
        engine_file = Path(folder, "engine.spikes")
        engine_file.write_bytes(write_engine(data))
        with Workers(str(engine_file), find_words, limits, available_cores()) as workers:
            recognition = RecognitionService(
                workers, data.description, find_words=find_words, limits=limits, token=token
            )
            shown_host = f"[{host}]" if ":" in host else host
            page = f"http://{shown_host}:{listener.getsockname()[1]}/"
            shown = f"{page}#token={token}" if token else page
            serve(recognition, listener, limits, on_ready=lambda: running.show(shown))


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM end the command as Ctrl-C does, with nothing left behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
