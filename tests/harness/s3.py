"""A real S3 server (rclone) that tests start, kill and start again, and a proxy that misbehaves."""

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HOST = "127.0.0.1"


def find_rclone() -> str | None:
    """The rclone beside this interpreter, or on the path."""
    return shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")


class S3Process:
    """``rclone serve s3`` on a folder whose subfolders are the buckets.

    The secret goes to it through the environment: a command line can be read by anyone.

    Attributes:
        endpoint: its address, the same after a restart.
    """

    def __init__(self, folder: Path, key: str, secret: str) -> None:
        self._folder = folder
        self._environment = {**os.environ, "RCLONE_AUTH_KEY": f'"{key},{secret}"'}
        self._port = 0
        self.start()

    def start(self) -> None:
        """Start, and wait for the line in which it says where it listens."""
        rclone = find_rclone()
        assert rclone is not None
        address = f"{HOST}:{self._port}"
        self._process = subprocess.Popen(
            # Zero would be a timer that fires without pause: rclone then stops answering.
            [*(rclone, "serve", "s3", "--addr", address, "--config", os.devnull),
             *("--dir-cache-time", "100ms", str(self._folder))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self._environment,
            text=True,
        )  # fmt: skip
        assert self._process.stderr is not None
        for line in self._process.stderr:
            match = re.search(rf"https?://{re.escape(HOST)}:(\d+)", line)
            if match is not None:
                # Someone must go on reading, or the server blocks on a full pipe.
                threading.Thread(target=self._process.stderr.read, daemon=True).start()
                self._port, self.endpoint = int(match[1]), match[0]
                return
        raise RuntimeError(f"rclone ended with {self._process.wait()} before it served")

    @property
    def command_line(self) -> str:
        """As anyone on the machine can read it."""
        return Path(f"/proc/{self._process.pid}/cmdline").read_bytes().decode()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(timeout=1200)


Fault = int | float | str | Callable[[], None]
Misbehaviour = Callable[[int, str, str], Fault | None]
"""(request's number, method, path) to what is done instead of handing it on: a status to answer,
seconds to wait first (a float), ``reset`` to cut the connection after half an answer, something to
call when half the body or, without one, half the answer is through, or None."""


class FaultProxy:
    """Hands requests on to an S3 server, but for those that a rule picks.

    Attributes:
        rule: what to do with each request; may be changed at any time.
        num_requests: requests seen so far.
    """

    def __init__(self, endpoint: str) -> None:  # noqa: C901 - the handler's class is local
        self.rule: Misbehaviour = lambda number, method, path: None
        self.num_requests = 0
        self.num_faults = 0
        self._lock = threading.Lock()
        proxy = self
        target = endpoint.removeprefix("http://")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = proxy._judge(self.command, self.path)
                if isinstance(fault, int):
                    self._answer(fault, {}, b"<Error><Code>InternalError</Code></Error>")
                    return
                if isinstance(fault, float):
                    time.sleep(fault)
                try:
                    upstream = http.client.HTTPConnection(target, timeout=1200)
                    if callable(fault) and body:
                        upstream.putrequest(self.command, self.path, True, True)
                        for name, value in self.headers.items():
                            upstream.putheader(name, value)
                        upstream.endheaders(body[: len(body) // 2])
                        fault()
                        self.close_connection = True
                        return
                    upstream.request(self.command, self.path, body, dict(self.headers))
                    response = upstream.getresponse()
                    content = response.read()
                except OSError:
                    self.close_connection = True  # the server is gone: so are we
                    return
                headers = {
                    name: value
                    for name, value in response.getheaders()
                    if name.lower() not in ("transfer-encoding", "connection", "content-length")
                }
                if self.command == "HEAD":
                    headers["Content-Length"] = response.getheader("Content-Length") or "0"
                if callable(fault):
                    fault()
                cut = len(content) // 2 if fault == "reset" or callable(fault) else None
                self._answer(response.status, headers, content, cut)

            def _answer(
                self, status: int, headers: dict[str, str], content: bytes, cut: int | None = None
            ) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[:cut])
                if cut is not None:
                    self.close_connection = True

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """Say nothing where a client was killed."""
                if not isinstance(sys.exc_info()[1], OSError):
                    super().handle_error(request, client_address)  # type: ignore[arg-type]

        self._server = Server((HOST, 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://{HOST}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _judge(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.num_requests += 1
            fault = self.rule(self.num_requests, method, path)
            self.num_faults += fault is not None
            return fault

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
