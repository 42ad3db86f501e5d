"""The embedded default: a Prefect server of our own for the length of one command.

Prefect can start a temporary server itself, but then a person sees its log, waits for it
while nothing else happens, and is left with it when the command is killed. Here the listening
socket is opened first and handed to the server's process, so that there is no port to race
for; the server starts while the command imports its libraries; its output goes to a file; and
it ends when our end of a pipe closes, however this process ends.

Settings come from the environment and from Prefect's active profile: with ``PREFECT_API_URL``
set, nothing is started.
"""

import atexit
import contextlib
import ipaddress
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from featurize.stage import PipelineError
from flows import terminal
from spikeline_start import module_command

STARTUP_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 10.0
_DRAIN_TIMEOUT_S = 5.0
_POLL_S = 0.1
_MAX_LOG_BYTES = 2**20
# The last line of a traceback, or what uvicorn and SQLAlchemy say of an error.
_ERROR_LINE = re.compile(
    r"^(?:[\w.]+(?:Error|Exception|Exit|Interrupt)\b.*|ERROR:.*\S.*)$", re.MULTILINE
)


@dataclass
class EmbeddedServer:
    """A running server process."""

    process: "subprocess.Popen[bytes]"
    api_url: str  # the value of ``PREFECT_API_URL`` that reaches it
    log: Path  # file with its output

    def stop(self) -> None:
        """Close the pipe the server watches and wait for its end; harmless when repeated."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_server() -> EmbeddedServer:
    """Start a Prefect API server on a loopback port; it is not ready yet when this returns.

    The database is that of the person's Prefect home, so that ``prefect server start`` shows
    the runs afterwards.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    descriptor, log_path = tempfile.mkstemp(prefix="spikeline-prefect-", suffix=".log")
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    environment |= {
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
        # The heartbeat and the migrations of a fresh database want the same lock.
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # The command keeps Prefect quiet on the screen; the log has to say why it cannot start.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",
    }
    with listener, os.fdopen(descriptor, "wb") as log:
        process = subprocess.Popen(
            module_command("flows.server_process", str(listener.fileno())),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno()],
            env=environment,
            start_new_session=True,  # Ctrl-C is for us; the server ends with the pipe
        )
    server = EmbeddedServer(process, f"http://127.0.0.1:{port}/api", Path(log_path))
    atexit.register(server.stop)
    return server


def _configured_api_url() -> str | None:
    """The server a person has chosen, by the environment or by Prefect's active profile."""
    if os.environ.get("PREFECT_API_URL"):
        return os.environ["PREFECT_API_URL"]
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH", str(home / "profiles.toml")))
    if not profiles.exists():
        return None
    # Only a person who has profiles pays for this import before the server's start.
    from prefect.settings import get_current_settings

    return get_current_settings().api.url


def _answers(api_url: str, timeout_s: float) -> bool:
    """Whether a Prefect API answers there, not a proxy on the way or a page of the UI."""
    request = urllib.request.Request(api_url.rstrip("/") + "/health")  # noqa: S310
    # Without a handler of its own, urllib takes the proxy that the environment names.
    own = [urllib.request.ProxyHandler({})] if _is_loopback(api_url) else []
    try:
        with urllib.request.build_opener(*own).open(request, timeout=timeout_s) as response:
            return bool(response.status == 200) and _is_json(response.headers)
    except urllib.error.HTTPError as error:
        # A protected server answers, and Prefect's own client carries the credentials.
        return error.code in (401, 403) and _is_json(error.headers)
    except OSError:
        return False


def _is_json(headers: Message) -> bool:
    return headers.get_content_type() == "application/json"


def _is_loopback(address: str) -> bool:
    host = urllib.parse.urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def cause_in_log(log: Path) -> str:
    """The last error that a server's log names, or its last line; empty where it says nothing."""
    try:
        text = log.read_bytes()[-_MAX_LOG_BYTES:].decode("utf-8", "replace")
    except OSError:
        return ""
    errors = [line.strip() for line in _ERROR_LINE.findall(text)]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (errors or lines or [""])[-1][:300]


def wait_until_ready(server: EmbeddedServer) -> None:
    """Wait until a server of ours answers."""
    deadline = time.monotonic() + STARTUP_TIMEOUT_S
    while not _answers(server.api_url, timeout_s=5.0):
        if server.process.poll() is None and time.monotonic() > deadline:
            server.stop()
            raise PipelineError(
                f"the embedded Prefect server did not answer within {STARTUP_TIMEOUT_S:.0f} s (its "
                f"log is {server.log}); the machine may be too busy: run the same command again"
            )
        if server.process.poll() is not None:
            server.stop()
            cause = cause_in_log(server.log) or "it says nothing"
            raise PipelineError(
                f"the embedded Prefect server did not start: {cause} (its log is {server.log}); "
                "where this is of the Prefect home or its database, set PREFECT_HOME to an empty "
                "folder"
            )
        time.sleep(_POLL_S)


def _send_what_waits() -> None:
    """Let Prefect's background threads send the last logs and events before the server goes."""
    if "prefect.flows" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=_DRAIN_TIMEOUT_S)


class PrefectApi:
    """Prefect's API for this process: the configured server, or an embedded one.

    Construct it early, before Prefect is imported: an embedded server then starts while the
    rest is imported. Call :meth:`ready` before the first flow.
    """

    def __init__(self) -> None:
        configured = _configured_api_url()
        self._server = None if configured else start_server()
        self.api_url = configured or (self._server.api_url if self._server else "")
        self._is_ready = False
        self._said = contextlib.ExitStack()
        if self._server is not None:
            self._said.enter_context(terminal.bar("starting Prefect"))
            # Prefect reads its settings once, at import, from the environment.
            os.environ["PREFECT_API_URL"] = self._server.api_url

    def ready(self) -> None:
        """Wait until the server answers."""
        if self._server is not None:
            wait_until_ready(self._server)
            self._is_ready = True
        elif not _answers(self.api_url, timeout_s=10.0):
            with_path = self.api_url.rstrip("/") + "/api"
            if _answers(with_path, timeout_s=10.0):
                raise PipelineError(
                    f"PREFECT_API_URL={self.api_url} is not the address of the API; use {with_path}"
                )
            raise PipelineError(
                f"no Prefect server answers at {self.api_url}; start it, or unset PREFECT_API_URL "
                "(or the profile that sets it) to use the embedded one"
            )
        self._said.close()

    def close(self) -> None:
        """Stop an embedded server; a configured one is left alone."""
        self._said.close()
        if self._server is not None:
            _send_what_waits()
            self._server.stop()
            if self._is_ready:  # else an error has named the log
                self._server.log.unlink(missing_ok=True)
            if os.environ.get("PREFECT_API_URL") == self._server.api_url:
                del os.environ["PREFECT_API_URL"]
