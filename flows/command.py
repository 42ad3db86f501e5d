"""Around every command: where output goes, and Prefect made ready but quiet.

Results go to stdout, everything else to stderr. Libraries (Ray, Prefect, eSpeak) write to the
file descriptor 1 when they please, so that descriptor points at stderr while a command works
and the result is written to the original one.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from flows.embedded_server import PrefectApi
from flows.terminal import Screen, open_screen, print_line, shortened

# Read by Prefect at import. A person sees the pipeline's own account of the run; Prefect's goes
# to its API. Set PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL=INFO to see it here as well.
_QUIET_PREFECT = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "DO_NOT_TRACK": "1",
}


class Command:
    """One command at work.

    Attributes:
        as_json: whether the result is one JSON object.
        screen: stderr.
    """

    def __init__(self, as_json: bool, screen: Screen, stdout: int) -> None:
        self.as_json = as_json
        self.screen = screen
        self._stdout = stdout
        self._started_s = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the command began."""
        return time.monotonic() - self._started_s

    def show(self, item: RenderableType) -> None:
        """Print a part of the result as soon as it is there; nothing with ``--json``."""
        if not self.as_json:
            with os.fdopen(os.dup(self._stdout), "w", encoding="utf-8") as stream:
                _print(Console(file=stream, highlight=False, emoji=False), item)

    def finish(self, result: dict[str, Any], *shown: RenderableType) -> None:
        """Print the result: the object with ``--json``, else what is shown to a person."""
        with os.fdopen(os.dup(self._stdout), "w", encoding="utf-8") as stream:
            if self.as_json:
                stream.write(json.dumps(result, allow_nan=False) + "\n")
                return
            console = Console(file=stream, highlight=False, emoji=False)
            for item in shown:
                _print(console, item)


def _print(console: Console, item: RenderableType) -> None:
    if isinstance(item, str):
        print_line(console, Text(shortened(item)))
    else:
        console.print(item)


@contextmanager
def command(as_json: bool) -> Iterator[Command]:
    """Send stray output to stderr and show progress there for as long as the context lasts."""
    with _StdoutOnStderr() as stdout, open_screen() as screen:
        logging.captureWarnings(True)
        yield Command(as_json, screen, stdout)


@contextmanager
def prefect_api() -> Iterator[PrefectApi]:
    """Prefect's API for the flows of a command; enter before importing any flow.

    The embedded server starts at once; call ``ready`` on the result before the first flow.
    """
    for name, value in _QUIET_PREFECT.items():
        os.environ.setdefault(name, value)
    api = PrefectApi()
    try:
        yield api
    finally:
        api.close()


class _StdoutOnStderr:
    """Points file descriptor 1 at stderr; gives the original as a new descriptor."""

    def __enter__(self) -> int:
        sys.stdout.flush()
        self._saved = os.dup(1)
        os.dup2(2, 1)
        return self._saved

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.stdout.flush()
        os.dup2(self._saved, 1)
        os.close(self._saved)
