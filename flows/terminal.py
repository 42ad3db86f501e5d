"""What a person at a terminal sees while stages run: log lines and bars, on stderr.

The pipeline's packages log through ``logging``; the command line shows those records here, so
that a bar and a line never tear each other. Without the command line (a Prefect worker), no
screen is open and bars go nowhere.
"""

import logging
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_INTERVAL_S = 60.0
"""Between two lines of progress where there is no terminal."""

PACKAGES = ("featurize", "training", "evaluation", "flows", "infra")


# Epochs are told from the progress (``flows.progress``), which also comes from Ray's workers.
_DETAILS = frozenset({"training.loop", "training.recurrence"})


def shortened(text: str) -> str:
    """A text for people, with paths below the working folder and the home as they are typed."""
    for folder, short in ((Path.cwd(), ""), (Path.home(), "~/")):
        if folder != Path("/"):
            # not within another path or an address
            text = re.sub(rf"(?<![\w./:-]){re.escape(str(folder))}/", short, text)
    return text


def print_line(console: Console, text: Text) -> None:
    """Print a line, broken between words on a terminal; a path is never broken, to be copied."""
    fits = all(len(word) <= console.width for word in text.plain.split())
    console.print(text, soft_wrap=not (console.is_terminal and fits))


class _ScreenHandler(logging.Handler):
    """Prints records above the bars; a library's own format would repeat the time and name."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave details to the Prefect run's log."""
        return record.levelno >= logging.WARNING or record.name not in _DETAILS

    def emit(self, record: logging.LogRecord) -> None:
        text = Text(shortened(record.getMessage()))
        if record.levelno >= logging.WARNING:
            text = Text(f"{record.levelname.lower()}: ", style="yellow") + text
        print_line(self._console, text)


class Screen:
    """The terminal of one command."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.is_live = console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._num_bars = 0

    @contextmanager
    def bar(self, title: str) -> Iterator["Bar"]:
        """A bar for as long as the context lasts; a line a minute where stderr is no terminal."""
        if not self.is_live:
            yield LineBar(title, self.console)
            return
        if self._num_bars == 0:
            self._progress.start()
        self._num_bars += 1
        task = self._progress.add_task(title, total=1.0, note="")
        try:
            yield Bar(self._progress, task)
        finally:
            self._progress.remove_task(task)
            self._num_bars -= 1
            if self._num_bars == 0:
                self._progress.stop()


class Bar:
    """A handle on one progress bar."""

    def __init__(self, progress: Progress | None, task: "object") -> None:
        self._progress = progress
        self._task = task

    def update(self, share: float, note: str = "") -> None:
        """Move the bar.

        Args:
            share: done, from 0 to 1.
        """
        if self._progress is not None:
            self._progress.update(self._task, completed=share, note=note)  # type: ignore[arg-type]


class LineBar(Bar):
    """Progress where there is no terminal: a line a minute, none of work that is done sooner.

    Args:
        clock: seconds that only grow.
    """

    def __init__(
        self, title: str, console: Console, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(None, None)
        self._title = title
        self._console = console
        self._clock = clock
        self._last_s = clock()

    def update(self, share: float, note: str = "") -> None:
        """Say where the work is, if a minute has passed since it was said."""
        now_s = self._clock()
        if now_s - self._last_s >= LINE_INTERVAL_S:
            self._last_s = now_s
            self._console.print(Text(f"{self._title}: {share:.0%}  {note}"), soft_wrap=True)


class LiveLine:
    """A text that grows in place: the end of it, in one line of the terminal.

    Where there is no terminal, every state of the text is a line of its own.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._in_place = stream.isatty()
        self._shown = ""

    def show(self, text: str) -> None:
        """Replace what is shown."""
        if text == self._shown:
            return
        self._shown = text
        if not self._in_place:
            self._stream.write(f"... {text}\n")
            return
        width = shutil.get_terminal_size().columns - 1
        cut = text if len(text) <= width else "..." + text[len(text) - width + 3 :]
        self._stream.write(f"\r{cut}\x1b[K")
        self._stream.flush()

    def end(self) -> None:
        """Clear the line, for what follows."""
        if self._in_place and self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


_screen: Screen | None = None


@contextmanager
def open_screen() -> Iterator[Screen]:
    """Show the packages' log records and bars on stderr for as long as the context lasts."""
    global _screen
    screen = Screen(Console(file=sys.stderr, highlight=False))
    handler = _ScreenHandler(screen.console)
    loggers = [logging.getLogger(name) for name in PACKAGES]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    _screen = screen
    try:
        yield screen
    finally:
        _screen = None
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


@contextmanager
def bar(title: str) -> Iterator[Bar]:
    """A bar on the open screen, or one that shows nothing."""
    if _screen is None:
        yield Bar(None, None)
    else:
        with _screen.bar(title) as shown:
            yield shown
