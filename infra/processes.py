"""Processes that outlive the command that started them, and that a later command can stop.

A process is known by its id and its start time, so that a number which the system gave to another
program in the meantime is never signalled.
"""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from featurize.stage import TypedConfig, process_start

_POLL_S = 0.1
_KILLED_WITHIN_S = 60.0


class StartedProcess(TypedConfig):
    """A process of ours, leader of a group of its own."""

    name: str
    pid: int
    start_ticks: int  # when it started, in the kernel's clock ticks since boot
    log: str  # file with its output

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return process_start(self.pid) == str(self.start_ticks)


def start_process(
    name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]
) -> StartedProcess:
    """Start a process that ignores this terminal; its output goes to the end of the log."""
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )
    ticks = int(process_start(process.pid) or 0)
    return StartedProcess(name=name, pid=process.pid, start_ticks=ticks, log=str(log))


def stop_process(process: StartedProcess, patience_s: float) -> None:
    """End a process: asked, asked again (a Prefect worker may want that), then by force.

    Args:
        process: what to stop; one that has ended is left alone.
        patience_s: how long each of the two requests may take.
    """
    for _ in range(2):
        if not process.is_alive:
            return
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        if _has_ended(process, patience_s):
            return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # The kernel takes its time where a disk is slow.
    _has_ended(process, _KILLED_WITHIN_S)


def _has_ended(process: StartedProcess, patience_s: float) -> bool:
    deadline_s = time.monotonic() + patience_s
    while process.is_alive:
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_POLL_S)
    return True
