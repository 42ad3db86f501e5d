"""The embedded Prefect server's process: serves on an inherited socket until stdin closes."""

import os
import socket
import sys
import threading

import uvicorn
from prefect.server.api.server import create_app


def main() -> None:
    """Serve the Prefect API on the socket whose descriptor is the first argument."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    listener.set_inheritable(False)
    server = uvicorn.Server(
        uvicorn.Config(create_app, factory=True, log_level="error", lifespan="on")
    )

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
