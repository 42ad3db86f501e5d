"""Loaded by every interpreter of a run under test: kills the process at a chosen instant.

``SPIKELINE_FAULT`` is a JSON object:

- ``{"count": N, "below": PATH}``: SIGKILL before the N-th change (a file opened for writing,
  renamed or removed) below a path; with ``"report": FILE`` no kill, but the number of changes.
- ``{"rename": REGEX, "once": FILE}``: SIGKILL before a rename whose target matches, unless the
  marker file is there.

An audit hook sees these calls before the kernel does.
"""

import json
import os
import re
import signal
import sys


def _install(fault: dict) -> None:
    done = 0

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def changes(event: str, arguments: tuple) -> list:
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            return [path] if writes and isinstance(path, str | bytes) else []
        if event in ("os.rename", "os.remove", "os.rmdir"):
            return [a for a in arguments[:2] if isinstance(a, str | bytes | os.PathLike)]
        return []

    def count(event: str, arguments: tuple) -> None:
        nonlocal done
        paths = changes(event, arguments)
        if any(os.fsdecode(path).startswith(fault["below"]) for path in paths):
            done += 1
            if "report" in fault:
                with open(fault["report"], "w") as stream:
                    stream.write(str(done))
            elif done == fault["count"]:
                kill()

    def rename(event: str, arguments: tuple) -> None:
        is_meant = event == "os.rename" and re.search(fault["rename"], os.fsdecode(arguments[1]))
        if is_meant and not os.path.exists(fault["once"]):
            with open(fault["once"], "x") as stream:
                stream.write(str(os.getpid()))
            kill()

    sys.addaudithook(count if "below" in fault else rename)


if "SPIKELINE_FAULT" in os.environ:
    _install(json.loads(os.environ["SPIKELINE_FAULT"]))
