"""A stack as ``make up`` starts it, with a state folder and port of its own, for all tests here."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra import prefect_api
from infra.local_stack import Stack, StateFolder
from infra.prefect_api import request
from tests.infra.ray_nodes import free_port

FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@pytest.fixture(autouse=True, scope="session")
def _a_server_may_take_its_time() -> Iterator[None]:
    """A busy machine is no failure."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(prefect_api, "_TIMEOUT_S", 600.0)
        patched.setattr(prefect_api, "_BUSY_S", 600.0)
        yield


@pytest.fixture(autouse=True)
def _environment_stays() -> Iterator[None]:
    """``up`` points its process at the server it started; the tests after it have their own."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def local_stack(command: str, state: Path, *arguments: str) -> str:
    """What ``make up`` and ``make down`` call; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "infra.local_stack", command, "--state", state, *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class RunningStack:
    """A stack that is up, and its HTTP API, called as the UI calls it."""

    state: Path
    port: int
    runs: Path
    printed: str

    @property
    def record(self) -> Stack:
        stack = StateFolder(self.state).read()
        assert stack is not None
        return stack

    @property
    def ui_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(self, method: str, path: str, body: object = None) -> Any:
        return request(f"{self.ui_url}/api", method, path, body)

    def deployment(self, flow: str, name: str) -> dict[str, Any]:
        return self.call("GET", f"/deployments/name/{flow}/{name}")

    def start(self, deployment: dict[str, Any], parameters: dict[str, Any]) -> str:
        """Start a run as the form's Submit does; returns its id."""
        body = {"parameters": parameters, "state": {"type": "SCHEDULED", "message": "from the UI"}}
        return self.call("POST", f"/deployments/{deployment['id']}/create_flow_run", body)["id"]

    def state_of(self, run: str) -> dict[str, Any]:
        return self.call("GET", f"/flow_runs/{run}")["state"]

    def set_state(self, run: str, type_: str, name: str, force: bool = False) -> None:
        """What the UI's Cancel and Retry send."""
        body = {"state": {"type": type_, "name": name}, "force": force}
        assert self.call("POST", f"/flow_runs/{run}/set_state", body)["status"] == "ACCEPT"

    def finish(self, run: str) -> dict[str, Any]:
        """Wait for a run's end; returns its final state."""
        while (state := self.state_of(run))["type"] not in FINAL:
            time.sleep(0.3)
        return state

    def complete(self, run: str) -> None:
        """Wait until a run has done what it should."""
        state = self.finish(run)
        assert state["type"] == "COMPLETED", f"{state}\n{self.worker_log()}"

    def outcome(self, run: str) -> dict[str, Any]:
        """What a pipeline's run returned, as the server points to it."""
        return json.loads(Path(self.state_of(run)["data"]["storage_key"]).read_text())["data"]

    def subflows(self, run: str) -> list[dict[str, Any]]:
        """Runs that this run started."""
        below = {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}}
        return self.call("POST", "/flow_runs/filter", below)

    def artifacts(self, run: str) -> dict[str, dict[str, Any]]:
        """Artifacts of a run and those below it, by key."""
        runs = [run, *(below["id"] for below in self.subflows(run))]
        found = self.call(
            "POST", "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": runs}}}
        )
        return {artifact["key"]: artifact for artifact in found if artifact["key"]}

    def worker_log(self) -> str:
        return (self.state / "worker.log").read_text()[-4000:]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    folder = tmp_path_factory.mktemp("stack")
    state, runs, port = folder / "state", folder / "runs", free_port()
    try:
        printed = local_stack("up", state, "--port", str(port), "--runs", str(runs))
        yield RunningStack(state, port, runs, printed)
    finally:
        local_stack("down", state)


TINY = (
    "synthetic.minutes=1.4",
    "synthetic.seed=7",
    "synthetic.num_speakers=20",
    "featurize.utterances_per_shard=8",
    "evaluate.num_bootstrap=100",
    "evaluate.viterbi.tune_max_utterances=5",
    "fan_out.num_workers=2",
    "workers.in_process=true",
)
"""What makes the demo end in seconds, beside its models, size and epochs."""


def tiny(parameters: dict[str, Any], *overrides: str) -> dict[str, Any]:
    """The demo's parameters, changed as a person would in the form, to end in seconds."""
    chosen = {"models": ["v2"], "size": 8, "epochs": 2, "overrides": [*TINY, *overrides]}
    return parameters | chosen


@dataclass(frozen=True)
class FinishedPipeline:
    """A run of the demo's deployment that is done."""

    run: str
    parameters: dict[str, Any]
    outcome: dict[str, Any]


@pytest.fixture(scope="session")
def pipeline(stack: RunningStack) -> FinishedPipeline:
    deployment = stack.deployment("pipeline", "demo")
    parameters = tiny(deployment["parameters"])
    run = stack.start(deployment, parameters)
    stack.complete(run)
    return FinishedPipeline(run, parameters, stack.outcome(run))
