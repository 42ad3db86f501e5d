"""Progress of a running training, handed through a file so that any process can watch.

Workers run in other processes, maybe on other machines: what they print does not reach a
person. Rank 0 writes ``progress.json`` into the run's location, whoever started it looks there.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from featurize.stage import Location
from training.manifest import TrainProgress

logger = logging.getLogger(__name__)

PROGRESS_NAME = "progress.json"
_LOCAL_INTERVAL_S = 0.5
_REMOTE_INTERVAL_S = 5.0


def _interval_s(run: Location) -> float:
    return _LOCAL_INTERVAL_S if run.is_local else _REMOTE_INTERVAL_S


class ProgressFile:
    """Writes progress, seldom enough not to cost anything."""

    def __init__(self, run: Location) -> None:
        self._file = run.child(PROGRESS_NAME)
        self._interval_s = _interval_s(run)
        self._next = 0.0

    def __call__(self, progress: TrainProgress) -> None:
        """Write when an interval has passed, or an epoch has ended."""
        epoch_ended = progress.num_steps == 0
        if time.monotonic() < self._next and not epoch_ended:
            return
        self._next = time.monotonic() + self._interval_s
        self._file.write_bytes(progress.model_dump_json().encode())


@contextmanager
def watching(run: Location, on_progress: Callable[[TrainProgress], None]) -> Iterator[None]:
    """Call back with each new state of the progress file while the context lasts.

    Args:
        on_progress: called from a thread of this process.
    """
    file = run.child(PROGRESS_NAME)
    ended = threading.Event()

    def watch() -> None:
        seen = b""
        while True:
            last_look = ended.wait(_interval_s(run))
            try:
                content = file.read_bytes() if file.exists() else b""
                if content and content != seen:
                    seen = content
                    on_progress(TrainProgress.model_validate_json(content))
            except (OSError, ValidationError) as error:
                logger.debug("progress not readable now: %s", error)
            if last_look:
                return

    thread = threading.Thread(target=watch, name="training-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
