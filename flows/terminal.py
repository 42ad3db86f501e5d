"""What a person at a terminal sees while stages run: log lines and bars, on stderr.

The pipeline's packages log through ``logging``; the command line shows those records here, so
that a bar and a line never tear each other. Without the command line (a Prefect worker), no
screen is open and bars go nowhere.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

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

PACKAGES = ("featurize", "training", "evaluation", "flows", "infra")


# Epochs are told from the progress (``flows.progress``), which also comes from Ray's workers.
_DETAILS = frozenset({"training.loop", "training.recurrence"})


class _ScreenHandler(logging.Handler):
    """Prints records above the bars; a library's own format would repeat the time and name."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave details to the Prefect run's log."""
        return record.levelno >= logging.WARNING or record.name not in _DETAILS

    def emit(self, record: logging.LogRecord) -> None:
        text = Text(record.getMessage())
        if record.levelno >= logging.WARNING:
            text = Text(f"{record.levelname.lower()}: ", style="yellow") + text
        self._console.print(text, soft_wrap=True)


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
        """A bar for as long as the context lasts; nothing where stderr is no terminal."""
        if not self.is_live:
            yield Bar(None, None)
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
            note: a few words beside it.
        """
        if self._progress is not None:
            self._progress.update(self._task, completed=share, note=note)  # type: ignore[arg-type]


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
