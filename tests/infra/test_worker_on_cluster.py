"""``python -m infra.worker``: a Prefect worker that joins a Ray cluster which asks for a token."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.prefect_api import has_worker, is_healthy
from tests.infra.conftest import RunningStack, tiny
from tests.infra.ray_nodes import HOST, RayCluster, command_of, descendants, free_port, ray_cluster

pytestmark = [pytest.mark.integration, pytest.mark.cluster, pytest.mark.timeout(900)]

NUM_NODES = 2


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    temp = Path(tempfile.mkdtemp(prefix="sl-", dir="/tmp"))
    folder = tmp_path_factory.mktemp("cluster")
    try:
        with ray_cluster(folder, temp, NUM_NODES, with_driver_node=False) as nodes:
            yield nodes
    finally:
        shutil.rmtree(temp, ignore_errors=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """Prefect's server alone, with the deployments, as a cluster has it."""
    state, port = tmp_path_factory.mktemp("server"), free_port()
    runs = state / "runs"
    environment = os.environ | {
        "PREFECT_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_HOME": str(state / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "SPIKELINE_RUNS": str(runs),
    }
    command = [sys.executable, "-m", "prefect", "server", "start"]
    process = subprocess.Popen(
        [*command, "--host", HOST, "--port", str(port)],
        env=environment,
        stdout=(state / "server.log").open("wb"),
        stderr=subprocess.STDOUT,
    )
    try:
        wait_until(lambda: is_healthy(environment["PREFECT_API_URL"]), process)
        subprocess.run([sys.executable, "-m", "infra.register"], env=environment, check=True)
        yield RunningStack(state, port, runs, "")
    finally:
        process.terminate()
        process.wait(timeout=60)


def wait_until(is_so, process: "subprocess.Popen[bytes]", timeout_s: float = 240) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)


def start_worker(
    server: RunningStack, cluster: RayCluster, **changed: str
) -> "subprocess.Popen[bytes]":
    environment = {
        **cluster.environment,
        "PREFECT_API_URL": f"{server.ui_url}/api",
        "PREFECT_HOME": str(server.state / "prefect-of-worker"),
        "PREFECT_WORKER_WEBSERVER_PORT": str(free_port()),
        **changed,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "infra.worker"],
        env=environment,
        stdout=(server.state / "worker.log").open("wb"),
        stderr=subprocess.STDOUT,
    )


def test_runs_of_a_worker_that_joined_are_done_on_the_clusters_nodes(
    server: RunningStack, cluster: RayCluster
) -> None:
    worker = start_worker(server, cluster)
    try:
        wait_until(lambda: has_worker(f"{server.ui_url}/api"), worker)
        deployment = server.deployment("pipeline", "demo")
        at = ("fan_out.kind=ray", f"fan_out.num_workers={NUM_NODES}", "workers.in_process=false")
        parameters = tiny(deployment["parameters"], *at, f"workers.num_workers={NUM_NODES}")
        parameters["epochs"] = 20
        run = server.start(deployment, parameters)
        trained_on = [0] * NUM_NODES
        while (state := server.state_of(run))["type"] not in ("COMPLETED", "FAILED", "CRASHED"):
            here = [len(node.train_workers) for node in cluster.nodes]
            trained_on = [max(pair) for pair in zip(trained_on, here, strict=True)]
            time.sleep(0.05)
        assert state["type"] == "COMPLETED", server.worker_log()
        assert trained_on == [1] * NUM_NODES, "training was not on the cluster's nodes"
        assert Path(server.outcome(run)["evaluation"]["location"], "report.html").is_file()
        below = descendants(worker.pid)
        assert any("raylet" in command_of(pid) for pid in below), "the worker's own node"
    finally:
        worker.terminate()
        ended = worker.wait(timeout=180)
    assert ended == 0
    assert [pid for pid in below if "raylet" in command_of(pid)] == []
    assert all(node.process.poll() is None for node in cluster.nodes), "the cluster stays"


def test_a_worker_with_another_token_does_not_join_and_takes_no_runs(
    server: RunningStack, cluster: RayCluster
) -> None:
    worker = start_worker(server, cluster, RAY_AUTH_TOKEN="0" * 64)
    try:
        assert worker.wait(timeout=240) != 0
    finally:
        worker.kill()
    assert "token" in server.worker_log().lower() or "auth" in server.worker_log().lower()
