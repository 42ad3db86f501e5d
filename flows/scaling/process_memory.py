"""Peak memory of this process and of those below it, as Linux accounts for it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_INTERVAL_S = 1.0
_WORKERS = ("ray::RayTrainWorker", "spawn_main")
"""On the command line of a training worker, and of a process pool's."""


@dataclass
class Peaks:
    """What was seen.

    Attributes:
        own_mib: of this process.
        worker_mib: of the largest worker below it; 0 where there was none.
    """

    own_mib: float = 0.0
    worker_mib: float = 0.0


def peak_mib(pid: int | str = "self") -> float:
    """The most memory a process has had resident; 0 for one that is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0.0


def workers_below() -> list[int]:
    """Workers that this process, or one below it, started."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may hold anything.
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    below = [int(Path("/proc/self").resolve().name)]
    for parent in below:
        below += [pid for pid, its_parent in parents.items() if its_parent == parent]
    return [pid for pid in below[1:] if any(mark in _command_line(pid) for mark in _WORKERS)]


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@contextmanager
def watched_peaks() -> Iterator[Peaks]:
    """Peaks while the context lasts; complete when it has ended.

    A worker that lives for less than a second may be missed.
    """
    peaks, ended = Peaks(), threading.Event()
    # Forget the peak so far (proc(5), clear_refs).
    Path("/proc/self/clear_refs").write_text("5")

    def watch() -> None:
        while not ended.wait(_INTERVAL_S):
            peaks.worker_mib = max([peaks.worker_mib, *map(peak_mib, workers_below())])

    thread = threading.Thread(target=watch, name="peak-memory", daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()
        peaks.own_mib = peak_mib()
