"""Whether the process that holds a lease still runs, where it is on this machine."""

import os
import socket
from pathlib import Path

from featurize.stage.typed_config import TypedConfig


class Owner(TypedConfig):
    """The process behind a claim."""

    host: str  # for messages only
    boot: str  # the machine's boot and process namespace; empty where the system does not say
    pid: int
    start: str  # when the process started, in the kernel's ticks; a reused id has another

    @classmethod
    def here(cls) -> "Owner":
        """This process."""
        pid = os.getpid()
        return cls(host=socket.gethostname(), boot=_boot(), pid=pid, start=process_start(pid) or "")

    def has_ended(self) -> bool:
        """Whether the process ran on this machine and has ended; False where it cannot be known."""
        if not self.boot or self.boot != _boot():
            return False
        start = process_start(self.pid)
        return start is not None and start != self.start


def _boot() -> str:
    """A name of this machine since its start, and of this process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""  # no such files: only the beat can tell


def process_start(pid: int) -> str | None:
    """Start time of a living process, in ticks since boot.

    Returns:
        Empty where there is no such process; None where it is hidden from us.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        try:
            os.kill(pid, 0)  # sends nothing, and asks the kernel behind a /proc that hides others
        except ProcessLookupError:
            return ""
        except OSError:
            return None
        return None
    # The command's name, in parentheses, may hold anything; state is the first field after it.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in ("Z", "X") else fields[19]
