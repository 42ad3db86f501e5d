"""A run cancelled from the UI and a run whose process is killed: both go on where they were."""

import copy
import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.infra.conftest import FinishedPipeline, RunningStack, local_stack
from tests.infra.ray_nodes import command_of, descendants

pytestmark = [pytest.mark.integration, pytest.mark.cluster, pytest.mark.timeout(900)]

NUM_EPOCHS = 60
PATIENCE_S = 400


def start_long_training(stack: RunningStack, pipeline: FinishedPipeline, seed: int) -> str:
    """A pipeline whose features stand already and whose training, on Ray, takes its time."""
    parameters = copy.deepcopy(pipeline.parameters)
    parameters |= {"seeds": [seed], "epochs": NUM_EPOCHS}
    parameters["overrides"].append("workers.in_process=false")
    return stack.start(stack.deployment("pipeline", "demo"), parameters)


def progress_of(training: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        return json.loads((training / "progress.json").read_text())
    return {"epochs": []}


def wait_for_epochs(stack: RunningStack, known: set[Path], number: int) -> tuple[Path, list[Any]]:
    """Wait until a new training has finished so many epochs; where it is, and their metrics."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for training in set((stack.runs / "training").iterdir()) - known:
            epochs = progress_of(training)["epochs"]
            if len(epochs) >= number:
                return training, epochs
        time.sleep(0.1)
    raise AssertionError(stack.worker_log())


def flow_processes(stack: RunningStack) -> list[int]:
    """Processes of the runs at work, Ray's among them."""
    assert stack.record.worker is not None
    return descendants(stack.record.worker.pid)


def wait_for_no_processes(stack: RunningStack) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while flow_processes(stack):
        assert time.monotonic() < deadline, [command_of(pid) for pid in flow_processes(stack)]
        time.sleep(0.1)


def wait_until_completed(stack: RunningStack, run: str) -> None:
    """Through other states: the worker may report the first attempt's death after the retry."""
    deadline = time.monotonic() + PATIENCE_S
    while (state := stack.state_of(run))["type"] != "COMPLETED":
        assert time.monotonic() < deadline, f"{state}\n{stack.worker_log()}"
        time.sleep(0.3)


def retry_and_compare(
    stack: RunningStack, run: str, training: Path, epochs_before: list[Any]
) -> None:
    features = stack.runs / "featurize"
    before = {path: path.stat().st_mtime_ns for path in features.rglob("*")}
    stack.set_state(run, "SCHEDULED", "AwaitingRetry", force=True)
    wait_until_completed(stack, run)
    assert stack.call("GET", f"/flow_runs/{run}")["run_count"] == 2
    outcome = stack.outcome(run)
    assert outcome["features"]["skipped"] is True
    assert outcome["models"]["v2"]["location"] == str(training)
    assert {path: path.stat().st_mtime_ns for path in features.rglob("*")} == before
    epochs = json.loads((training / "manifest.json").read_text())["metrics"]
    assert [metrics["epoch"] for metrics in epochs] == list(range(NUM_EPOCHS))
    # Down to the seconds each took: they were not trained again.
    assert epochs[: len(epochs_before)] == epochs_before


def test_a_cancelled_run_stops_ray_and_goes_on_when_retried(
    stack: RunningStack, pipeline: FinishedPipeline
) -> None:
    known = set((stack.runs / "training").iterdir())
    run = start_long_training(stack, pipeline, seed=11)
    training, epochs = wait_for_epochs(stack, known, 3)
    assert any("raylet" in command_of(pid) for pid in flow_processes(stack))
    started = time.monotonic()
    stack.set_state(run, "CANCELLING", "Cancelling")
    state = stack.finish(run)
    wait_for_no_processes(stack)
    print(f"{state['name']}, and every process gone, {time.monotonic() - started:.1f} s later")
    assert state["type"] == "CANCELLED"
    assert not (training / "manifest.json").exists()
    retry_and_compare(stack, run, training, epochs)


def test_a_killed_run_is_crashed_and_goes_on_when_retried(
    stack: RunningStack, pipeline: FinishedPipeline
) -> None:
    known = set((stack.runs / "training").iterdir())
    run = start_long_training(stack, pipeline, seed=12)
    training, epochs = wait_for_epochs(stack, known, 3)
    (flow,) = (pid for pid in flow_processes(stack) if "prefect.engine" in command_of(pid))
    os.kill(flow, signal.SIGKILL)
    assert stack.finish(run)["type"] == "CRASHED"
    assert not (training / "manifest.json").exists()
    retry_and_compare(stack, run, training, epochs)


def test_a_forced_training_starts_over(stack: RunningStack, pipeline: FinishedPipeline) -> None:
    training = Path(pipeline.outcome["models"]["v2"]["location"])
    before = (training / "manifest.json").stat().st_mtime_ns
    deployment = stack.deployment("stage-train", "stage-train")
    parameters = {
        **deployment["parameters"],
        **{"features": pipeline.outcome["features"]["location"], "size": 8, "epochs": 2},
        "overrides": ["workers.in_process=true"],
    }
    stack.complete(stack.start(deployment, parameters))
    assert (training / "manifest.json").stat().st_mtime_ns == before, "found, not trained again"
    stack.complete(stack.start(deployment, {**parameters, "force": True}))
    assert (training / "manifest.json").stat().st_mtime_ns > before


def test_down_while_a_run_is_at_work_stops_just_that_and_the_run_goes_on_after_up(
    stack: RunningStack, pipeline: FinishedPipeline
) -> None:
    known = set((stack.runs / "training").iterdir())
    run = start_long_training(stack, pipeline, seed=13)
    training, epochs = wait_for_epochs(stack, known, 3)
    record = stack.record
    assert record.server is not None
    assert record.worker is not None
    ours = [
        p for each in (record.server, record.worker) for p in [each.pid, *descendants(each.pid)]
    ]
    assert any("raylet" in command_of(pid) for pid in ours)
    commands = {pid: command_of(pid) for pid in ours}
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        started = time.monotonic()
        printed = local_stack("down", stack.state)
        print(f"down after {time.monotonic() - started:.1f} s: {printed.splitlines()}")
        assert "cancelled demo v2 size 8 60 epochs seed 13" in printed
        assert "stopped the worker" in printed
        assert "stopped the server" in printed
        # A number that another program was given meanwhile is not ours.
        assert [pid for pid in ours if command_of(pid) == commands[pid] != ""] == []
        assert bystander.poll() is None
        assert "nothing to stop" in local_stack("down", stack.state)
    finally:
        bystander.kill()
        bystander.wait()
        local_stack("up", stack.state, "--port", str(stack.port), "--runs", str(stack.runs))
    assert not (training / "manifest.json").exists()
    retry_and_compare(stack, run, training, epochs)
