"""``make up`` and ``make down``: Prefect's server, a worker and every deployment, on this machine.

The server listens on loopback only and keeps its database and logs, and the record of what was
started, in a state folder. ``up`` starts what is missing; ``down`` stops just what
``up`` started.
"""

import argparse
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from featurize.stage import Location, PipelineError, TypedConfig
from flows.failures import MISTAKE_EXIT_CODE, one_line
from flows.report_link import REPORTS_ROOT, REPORTS_URL
from flows.surroundings import settle_environment
from infra.prefect_api import POOL, cancel_runs, has_worker, is_healthy
from infra.processes import StartedProcess, start_process, stop_process
from spikeline_start import module_command

HOST = "127.0.0.1"
_DEFAULT_STATE = ".spikeline"
STARTUP_TIMEOUT_S = 300.0
_CANCEL_TIMEOUT_S = 90.0
_STOP_PATIENCE_S = 20.0
_POLL_S = 0.3


class Stack(TypedConfig):
    """What ``up`` started, kept for ``down``."""

    port: int
    server: StartedProcess | None = None  # Prefect's server
    worker: StartedProcess | None = None  # the process that starts runs
    reports: StartedProcess | None = None  # what shows reports to a browser
    reports_port: int = 0
    reports_root: str = ""  # results that are shown

    @property
    def ui_url(self) -> str:
        """What to open in a browser."""
        return f"http://{HOST}:{self.port}"

    @property
    def api_url(self) -> str:
        """The value of ``PREFECT_API_URL`` that reaches the server."""
        return f"{self.ui_url}/api"


class StateFolder:
    """Where a stack keeps its record, logs and database.

    Args:
        path: the folder; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._record = self.path / "stack.json"

    def read(self) -> Stack | None:
        """The recorded stack, or None."""
        try:
            return Stack.model_validate_json(self._record.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise PipelineError(
                f"{self._record} is damaged; stop what still runs by hand and remove it"
            ) from error

    def write(self, stack: Stack) -> None:
        """Record a stack, whole or not at all."""
        Location.of(self._record).write_bytes(stack.model_dump_json(indent=1).encode())

    def forget(self) -> None:
        """Remove the record; database and logs stay."""
        self._record.unlink(missing_ok=True)

    def start(self, name: str, module: str, *arguments: str) -> StartedProcess:
        """Start a module's command with this process's environment."""
        command = module_command(module, *arguments)
        return start_process(name, command, self.path / f"{name}.log", os.environ)


def up(state: StateFolder, port: int, runs: str, corpus: str, num_trainings: int) -> Stack:
    """Start the server and a worker, as far as they do not run, and register the deployments."""
    state.path.mkdir(parents=True, exist_ok=True)
    stack = state.read() or Stack(port=port)
    if stack.server is None or not stack.server.is_alive:
        stack = stack.model_copy(update={"port": port, "server": None})
    elif stack.port != port:
        raise PipelineError(
            f"the server already runs on port {stack.port}: make up PORT={stack.port}, or make "
            "down first"
        )
    # A worker keeps where its runs' reports are shown.
    is_shown = any(one is not None and one.is_alive for one in (stack.reports, stack.worker))
    if is_shown and stack.reports_root not in ("", Location.of(runs).uri):
        raise PipelineError(
            f"results at {stack.reports_root} are being served: make up RUNS={stack.reports_root}, "
            "or make down first"
        )
    _configure_prefect(state, stack)
    if stack.server is None:
        _require_free(port)
        print(f"starting Prefect's server on port {port}", flush=True)
        at = ("--host", HOST, "--port", str(port))
        server = state.start("server", "prefect", "server", "start", *at)
        stack = stack.model_copy(update={"server": server})
        state.write(stack)
    _wait_for(lambda: is_healthy(stack.api_url), stack.server)
    print("registering the deployments", flush=True)
    from infra.register import register  # reads Prefect's settings at import

    register(runs, corpus, num_trainings)
    stack = _serve_reports(state, stack, runs)
    if stack.worker is None or not stack.worker.is_alive:
        print("starting a worker", flush=True)
        taking = ("--pool", POOL, "--type", "process")
        worker = state.start("worker", "prefect", "worker", "start", *taking)
        stack = stack.model_copy(update={"worker": worker})
        state.write(stack)
    _wait_for(lambda: has_worker(stack.api_url), stack.worker)
    return stack


def _serve_reports(state: StateFolder, stack: Stack, runs: str) -> Stack:
    """Let a browser open reports: a page of the UI may not open files."""
    root = Location.of(runs).uri
    if stack.reports is None or not stack.reports.is_alive:
        port = stack.reports_port
        if not port or stack.worker is None or not stack.worker.is_alive:
            with socket.socket() as probe:
                probe.bind((HOST, 0))
                port = probe.getsockname()[1]
        at = ("--port", str(port), "--runs", root)
        reports = state.start("reports", "infra.report_server", *at)
        shown = {"reports": reports, "reports_port": port, "reports_root": root}
        stack = stack.model_copy(update=shown)
        state.write(stack)
    # For the worker, whose runs link to them.
    os.environ |= {REPORTS_URL: f"http://{HOST}:{stack.reports_port}", REPORTS_ROOT: root}
    return stack


def down(state: StateFolder) -> list[str]:
    """Cancel what is at work, then stop worker and server.

    Returns:
        What was done, in words.
    """
    stack = state.read()
    if stack is None:
        return [f"nothing to stop: no record of a running server in {state.path}"]
    done: list[str] = []
    if stack.worker is not None and stack.worker.is_alive and is_healthy(stack.api_url):
        for name in cancel_runs(stack.api_url, _CANCEL_TIMEOUT_S):
            done.append(f"cancelled {name}; after make up, Retry on its page goes on from there")
    for process in (stack.worker, stack.server, stack.reports):
        if process is not None and process.is_alive:
            stop_process(process, _STOP_PATIENCE_S)
            done.append(f"stopped the {process.name}")
    state.forget()
    return done or ["nothing to stop: worker and server had ended"]


def stop_line(state: StateFolder) -> str:
    """The command that stops what was started, as it must be typed."""
    default = StateFolder(Path(_DEFAULT_STATE))
    return "make down" if state.path == default.path else f"make down STATE={state.path}"


def directions(stack: Stack, state: StateFolder, runs: str) -> str:
    """Where to click, for a person."""
    return f"""
Prefect is at {stack.ui_url}

  Run everything   Deployments > demo > Run > Quick run: synthesises speech,
                   trains, compares.
  Watch            Runs > the run > Artifacts > overview: progress, then the
                   result and a link to the report.
  Another recipe   Deployments > pipeline-... > Run > Custom run: few fields,
                   any setting under overrides; what is finished is found.
  Rerun one stage  Deployments > stage-train (or another) > Run > Custom run.
  Stop and go on   Runs > the run > Cancel; Retry goes on from the last epoch.
  Every night      Deployments > demo > Schedules: switch it on, or add your
                   own to any other.

  Results          {Location.of(runs).uri}
  Logs             {state.path}
  Command line     export PREFECT_API_URL={stack.api_url}
  Stop             {stop_line(state)}
"""


def _configure_prefect(state: StateFolder, stack: Stack) -> None:
    """For this process, and for those it starts: this server, and a Prefect home of its own."""
    os.environ |= {
        "PREFECT_API_URL": stack.api_url,
        "PREFECT_HOME": str(state.path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    os.environ.pop("PREFECT_PROFILES_PATH", None)


def _require_free(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PipelineError(
                f"port {port} of {HOST} cannot be used ({error.strerror}); choose another: "
                f"make up PORT={port + 1}"
            ) from error


def _wait_for(is_ready: Callable[[], bool], process: StartedProcess | None) -> None:
    assert process is not None
    deadline_s = time.monotonic() + STARTUP_TIMEOUT_S
    while not is_ready():
        if not process.is_alive or time.monotonic() > deadline_s:
            raise PipelineError(f"the {process.name} did not start; its log is {process.log}")
        time.sleep(_POLL_S)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m infra.local_stack", description=__doc__)
    parser.add_argument("command", choices=["up", "down"])
    parser.add_argument("--state", type=Path, default=Path(_DEFAULT_STATE), help="state folder")
    parser.add_argument("--port", type=int, default=4200, help="port of the UI and API")
    parser.add_argument("--runs", default="runs", help="root of all results, path or s3://")
    parser.add_argument("--corpus", default="", help="root of the corpus that the forms propose")
    parser.add_argument("--trainings", type=int, default=1, help="runs that train at once")
    return parser.parse_args()


def main() -> int:
    """Run a command; a mistake becomes one line on stderr."""
    arguments = _arguments()
    state = StateFolder(arguments.state)
    try:
        settle_environment()
        if arguments.command == "down":
            print("\n".join(down(state)))
            return 0
        runs = arguments.runs
        stack = up(state, arguments.port, runs, arguments.corpus, arguments.trainings)
        print(directions(stack, state, runs))
    except (PipelineError, OSError) as error:
        print(f"spikeline: {one_line(error)}", file=sys.stderr)
        return MISTAKE_EXIT_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main())
