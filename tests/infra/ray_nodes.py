"""A Ray cluster of several nodes on one machine, each a ``ray start`` of its own, with a token."""

import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from infra.worker import ray_node_command

HOST = "127.0.0.1"
START_TIMEOUT_S = 180


def free_port() -> int:
    """A port outside of those that the kernel gives to whoever asks, which another test may get."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port


def children(pid: int) -> list[int]:
    """Processes that this one started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if status.read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(status.parent.name))
    return found


def descendants(pid: int) -> list[int]:
    """Every process below this one, the nearest first."""
    own = children(pid)
    return [*own, *(below for child in own for below in descendants(child))]


def command_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


@dataclass
class RayNode:
    """One node: the process of its ``ray start``."""

    process: subprocess.Popen[bytes]

    @property
    def train_workers(self) -> list[int]:
        """Ids of the training workers on this node."""
        pids = descendants(self.process.pid)
        return [pid for pid in pids if command_of(pid).startswith("ray::RayTrainWorker")]

    def kill(self) -> None:
        """Take the node away, as a lost machine goes: everything on it at once, unasked."""
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class RayCluster:
    """Nodes, the head first.

    Attributes:
        environment: what a driver needs to join.
    """

    environment: dict[str, str]
    folder: Path
    nodes: list[RayNode] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Of the head."""
        return self.environment["RAY_ADDRESS"]

    @property
    def living(self) -> list[RayNode]:
        """Nodes that were not taken away."""
        return [node for node in self.nodes if node.process.poll() is None]

    def add_node(self, *arguments: str) -> RayNode:
        """Start a node of one CPU, and wait until it runs."""
        ray = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments)
        options = ("--num-cpus", "1", "--node-ip-address", HOST, "--disable-usage-stats")
        small = ("--object-store-memory", "100000000", "--dashboard-agent-listen-port", "0")
        return self.start([*ray, *options, *small])

    def start(self, command: Sequence[str]) -> RayNode:
        """Start a node and wait until it says that it runs: nodes that start together collide."""
        log = self.folder / f"node-{len(self.nodes)}.log"
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
            env={**self.environment, "RAY_ADDRESS": "", "RAY_raylet_start_wait_time_s": "120"},
        )
        self.nodes.append(RayNode(process))
        deadline = time.monotonic() + START_TIMEOUT_S
        while "block forever" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the node did not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        return self.nodes[-1]


@contextmanager
def ray_cluster(
    folder: Path, temp: Path, num_nodes: int, with_driver_node: bool = True
) -> Iterator[RayCluster]:
    """A cluster of one-CPU nodes, and the node of a driver; ``temp`` must be a short path."""
    port = free_port()
    address = f"{HOST}:{port}"
    cluster = RayCluster(
        {
            **os.environ,
            "RAY_ADDRESS": address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        },
        folder,
    )
    try:
        head = ("--head", "--port", str(port), "--include-dashboard", "false")
        cluster.add_node(
            *head, "--temp-dir", str(temp), "--ray-client-server-port", str(free_port())
        )
        for _ in range(num_nodes - 1):
            cluster.add_node("--address", address)
        # As the worker of a container joins: runs start there, and nothing is scheduled there.
        if with_driver_node:
            cluster.start(ray_node_command(address))
        yield cluster
    finally:
        for node in reversed(cluster.nodes):
            node.kill()
