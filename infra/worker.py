"""The worker of a container or pod: a Prefect worker that has joined the Ray cluster.

A run that uses Ray must stand on a node of the cluster. So the worker's machine joins it as a node
without CPUs, on which nothing is scheduled, and the runs find it there. ``python -m infra.worker``
with ``PREFECT_API_URL`` and, where there is a cluster, ``RAY_ADDRESS``, ``RAY_AUTH_MODE=token`` and
the token.
"""

import os
import signal
import subprocess
import sys
import threading
from types import FrameType

from infra.prefect_api import POOL
from spikeline_start import module_command

_STOP_TIMEOUT_S = 60.0


def ray_node_command(address: str) -> list[str]:
    """Join the cluster as a node without CPUs, for as long as the command runs."""
    ray = module_command("ray.scripts.scripts", "start")
    return [*ray, "--address", address, "--num-cpus", "0", "--block", "--disable-usage-stats"]


def prefect_worker_command() -> list[str]:
    """Take runs from the work pool; answers ``/health`` on ``PREFECT_WORKER_WEBSERVER_PORT``."""
    prefect = module_command("prefect", "worker", "start")
    return [*prefect, "--pool", POOL, "--type", "process", "--with-healthcheck"]


class ProcessSet:
    """Processes that end together: when one ends or a signal comes, the others are stopped."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ended = threading.Event()

    def start(self, command: list[str]) -> None:
        """Start one more."""
        process = subprocess.Popen(command)
        self._processes.append(process)
        threading.Thread(target=self._watch, args=(process,), daemon=True).start()

    def _watch(self, process: "subprocess.Popen[bytes]") -> None:
        process.wait()
        self._ended.set()

    def stop_on(self, *signals: signal.Signals) -> None:
        """Have these signals end all."""

        def end(_number: int, _frame: FrameType | None) -> None:
            self._ended.set()

        for number in signals:
            signal.signal(number, end)

    def wait(self) -> int:
        """Wait for the first end, stop the rest, the last started first.

        Returns:
            The highest exit code of those that ended by themselves; 0 after a signal.
        """
        self._ended.wait()
        codes = [code for p in self._processes if (code := p.poll()) is not None]
        for process in reversed(self._processes):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(_STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        return max(codes, default=0)


def main() -> int:
    """Run both until one ends."""
    processes = ProcessSet()
    processes.stop_on(signal.SIGTERM, signal.SIGINT)
    address = os.environ.get("RAY_ADDRESS")
    if address:
        processes.start(ray_node_command(address))
    processes.start(prefect_worker_command())
    return processes.wait()


if __name__ == "__main__":
    sys.exit(main())
