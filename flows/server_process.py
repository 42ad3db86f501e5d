"""The embedded Prefect server's process: serves on an inherited socket until stdin closes."""

import fcntl
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import PREFECT_HOME

_LOCK_NAME = "spikeline-start.lock"


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Two servers that migrate a fresh database at once spoil it for each other.
        with _alone_in_home():
            await super().startup(sockets)


@contextmanager
def _alone_in_home() -> Iterator[None]:
    """Hold off other servers of the same Prefect home; where it cannot be locked, go on."""
    with ExitStack() as stack:
        with suppress(OSError):  # a home that is no folder: Prefect says so itself
            home = PREFECT_HOME.value()
            home.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(open(home / _LOCK_NAME, "wb"))
            fcntl.flock(lock, fcntl.LOCK_EX)  # ends with the file, however the process ends
        yield


def main() -> None:
    """Serve the Prefect API on the socket whose descriptor is the first argument."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    listener.set_inheritable(False)
    server = _Server(uvicorn.Config(create_app, factory=True, log_level="error", lifespan="on"))

    def stop_with_parent() -> None:
        # End of file comes when the parent closes the pipe, and also when it dies.
        # Not through sys.stdin: its lock, held by this thread, would end the process in a crash.
        while os.read(0, 4096):
            pass
        server.should_exit = True

    threading.Thread(target=stop_with_parent, daemon=True).start()
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
