"""Processes that run stages and may be killed: new interpreters, or forks of one kept ready."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

REPOSITORY = Path(__file__).parents[2]
INJECT = Path(__file__).parent / "inject"
# What stages import, sooner or later, so that a fork need not.
_PRELOADED = (
    "evaluation.evaluate",
    "featurize.featurize",
    "flows.failures",
    "pandas",
    "pyarrow.pandas_compat",
    "s3fs",
    "tests.faults.inject.sitecustomize",
    "tests.faults.stages",
    "tests.harness.tiny",
    "torch._dynamo",
    "training.train",
)


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        code: exit code, or the signal's number negated.
        said: what it wrote to stderr.
    """

    code: int
    said: str


class Run(Protocol):
    """A process at work on stages; it leads a session of its own."""

    pid: int

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""

    def send_signal(self, number: int) -> None:
        """Send a signal to it alone; nothing where it has ended."""

    def finish(self, patience_s: float) -> Ended:
        """Wait for its end; AssertionError where that does not come."""


class SpawnedRun:
    """A run in an interpreter of its own, with all its children under the same fault."""

    def __init__(
        self,
        specification: Mapping[str, Any],
        environment: Mapping[str, str],
        fault: Mapping[str, Any] | None,
        folder: Path,
    ) -> None:
        variables = {**environment, "PYTHONPATH": os.pathsep.join((str(INJECT), str(REPOSITORY)))}
        if fault is not None:
            variables["SPIKELINE_FAULT"] = json.dumps(fault)
        # A file: workers that outlive a killed driver would hold a pipe open.
        self._stderr = tempfile.TemporaryFile("w+", dir=folder, errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.stages", json.dumps(specification)],
            env=variables,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.poll()

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def finish(self, patience_s: float) -> Ended:
        try:
            code = self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            code = self._process.wait()
            raise AssertionError(f"did not end in {patience_s:.0f} s; {self._said()}") from None
        return Ended(code, self._said())

    def _said(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read()


@lru_cache(maxsize=1)
def _fork_context() -> Any:
    context = get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    return context


class ForkedRun:
    """A run forked from a process that has imported everything and done nothing."""

    def __init__(
        self,
        specification: Mapping[str, Any],
        environment: Mapping[str, str],
        fault: Mapping[str, Any] | None,
        folder: Path,
    ) -> None:
        descriptor, name = tempfile.mkstemp(dir=folder, prefix="said-")
        os.close(descriptor)
        self._stderr = Path(name)
        self._process = _fork_context().Process(
            target=_work,
            args=(dict(specification), dict(environment), fault, str(folder), name),
            daemon=True,
        )
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        code: int | None = self._process.exitcode
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def finish(self, patience_s: float) -> Ended:
        self._process.join(patience_s)
        code = self.poll()
        if code is None:
            self._process.kill()
            self._process.join()
        said = self._stderr.read_text(errors="replace")
        self._stderr.unlink()
        assert code is not None, f"did not end in {patience_s:.0f} s; said {said[-500:]}"
        return Ended(code, said)


def _work(
    specification: dict[str, Any],
    environment: dict[str, str],
    fault: dict[str, Any] | None,
    folder: str,
    stderr: str,
) -> None:
    """What a fork does; the first thing it does on its own."""
    from tests.faults.inject.sitecustomize import install
    from tests.faults.stages import run_and_explain

    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in ((1, os.devnull), (2, stderr)):
        descriptor = os.open(path, os.O_WRONLY)
        os.dup2(descriptor, number)
        os.close(descriptor)
    if fault is not None:
        install(fault)
    sys.exit(run_and_explain(specification))
