"""Loaded by every interpreter of a run under test: kills the process at a chosen instant.

``SPIKELINE_FAULT`` is a JSON object:

- ``{"count": N, "below": PATH}``: SIGKILL before the N-th change (a file opened for writing,
  renamed or removed; renewals of claims and progress, which come by the clock, are not
  counted) below a path, or another signal with ``"signal": NUMBER``; with
  ``"report": FILE`` no signal, but the number of changes.
- ``{"kills": [[REGEX, N, FILE], ...]}``: SIGKILL before the N-th change of a process to paths
  that match, unless the marker file is there; so each kill comes once, in whichever process.

An audit hook sees these calls before the kernel does.
"""

import json
import os
import re
import signal
import sys

BY_THE_CLOCK = r"\.lease-|progress\.json"


def install(fault: dict) -> None:  # noqa: C901 - its parts share two counters
    """Watch this process from now on."""
    done = 0
    seen: dict[int, int] = {}

    def changes(event: str, arguments: tuple) -> list[str]:
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            return [os.fsdecode(path)] if writes and isinstance(path, str | bytes) else []
        if event in ("os.rename", "os.remove", "os.rmdir"):
            paths = [a for a in arguments[:2] if isinstance(a, str | bytes | os.PathLike)]
            return [os.fsdecode(path) for path in paths]
        return []

    def count(event: str, arguments: tuple) -> None:
        nonlocal done
        paths = [path for path in changes(event, arguments) if path.startswith(fault["below"])]
        if any(not re.search(BY_THE_CLOCK, path) for path in paths):
            done += 1
            if "report" in fault:
                with open(fault["report"], "w") as stream:
                    stream.write(str(done))
            elif done == fault["count"]:
                os.kill(os.getpid(), fault.get("signal", signal.SIGKILL))

    def kill(event: str, arguments: tuple) -> None:
        paths = changes(event, arguments)
        for number, (pattern, at, marker) in enumerate(fault["kills"] if paths else ()):
            if any(re.search(pattern, path) for path in paths):
                seen[number] = seen.get(number, 0) + 1
                if seen[number] == at and not os.path.exists(marker):
                    with open(marker, "x") as stream:
                        stream.write(str(os.getpid()))
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count if "below" in fault else kill)


if "SPIKELINE_FAULT" in os.environ:
    install(json.loads(os.environ["SPIKELINE_FAULT"]))
