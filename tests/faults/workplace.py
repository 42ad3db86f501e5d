"""What every row of the fault matrix needs: a corpus, an undisturbed result, runs to disturb."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featurize.locations import Location
from featurize.stage import UNSEALED_NAMES
from tests.harness.tiny import make_corpus

REPOSITORY = Path(__file__).parents[2]
INJECT = Path(__file__).parent / "inject"
# What tells when, where and how fast; everything else is the result.
_UNSTABLE_FIELDS = frozenset(
    {"created_at", "seconds", "frames_per_s", "corpus", "checksums", "manifest_sha256"}
)
_UNSTABLE_FILES = frozenset({"metrics.parquet", "report.html"})
WAIT_S = 240.0
"""Where something never happens, a row fails after so long; nothing is decided by it else."""


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    said: str


@dataclass
class Workplace:
    """A folder for one matrix.

    Attributes:
        folder: everything is below it.
        rng: draws the kill points.
        num_points: how many in each crash row.
    """

    folder: Path
    rng: random.Random
    num_points: int
    environment: dict[str, str] = field(default_factory=dict)
    _undisturbed: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.corpus = self.folder / "corpus"
        if not self.corpus.exists():
            make_corpus(self.corpus)

    def fresh(self, name: str) -> str:
        """A runs folder that is not there yet."""
        runs = self.folder / "runs" / name
        shutil.rmtree(runs, ignore_errors=True)
        return str(runs)

    def start(
        self,
        runs: str,
        stages: list[str],
        fault: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> "subprocess.Popen[str]":
        """Start stages in a process of their own, in a session of their own."""
        specification = {"corpus": str(self.corpus), "runs": runs, "stages": stages} | options
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **self.environment}
        variables["PYTHONPATH"] = os.pathsep.join((str(INJECT), str(REPOSITORY)))
        variables |= environment or {}
        if fault is not None:
            variables["SPIKELINE_FAULT"] = json.dumps(fault)
        return subprocess.Popen(
            [sys.executable, "-m", "tests.faults.stages", json.dumps(specification)],
            env=variables,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, runs: str, stages: list[str], **options: Any) -> Ended:
        """Run stages to whatever end."""
        return finish(self.start(runs, stages, **options))

    def must(self, runs: str, stages: list[str], **options: Any) -> None:
        """Run stages to a good end."""
        ended = self.run(runs, stages, **options)
        assert ended.code == 0, f"ended with {ended.code}: {ended.said}"

    def undisturbed(self, stages: list[str], **options: Any) -> dict[str, str]:
        """The result of a run that nobody disturbs; made once."""
        key = json.dumps([stages, options])
        if key not in self._undisturbed:
            runs = self.fresh(f"undisturbed-{len(self._undisturbed)}")
            self.must(runs, stages, **options)
            self._undisturbed[key] = result_of(Location.of(runs))
        return self._undisturbed[key]

    def num_changes(self, stages: list[str]) -> int:
        """Files opened for writing, renamed or removed by an undisturbed run."""
        runs, report = self.fresh("counted"), self.folder / "changes"
        self.must(runs, stages, fault={"below": runs, "report": str(report)})
        return int(report.read_text())

    def compare(self, runs: str, expected: dict[str, str]) -> None:
        """Every result bit for bit, and nothing beside it."""
        found = result_of(Location.of(runs))
        wrong = sorted(n for n in {*found, *expected} if found.get(n) != expected.get(n))
        assert not wrong, f"{wrong} differ from the undisturbed run"


def finish(process: "subprocess.Popen[str]") -> Ended:
    """Wait for a process's end."""
    try:
        _, said = process.communicate(timeout=WAIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, said = process.communicate()
        raise AssertionError(f"did not end in {WAIT_S:.0f} s; said {said[-500:]}") from None
    return Ended(process.returncode, said)


def result_of(runs: Location) -> dict[str, str]:
    """File below the runs to the digest of what it says; times, rates and places left out."""
    found = {}
    for name, _ in runs.files().items():
        content = runs.child(name).read_bytes().replace(runs.uri.encode(), b"RUNS")
        last = name.rsplit("/", 1)[-1]
        if last in _UNSTABLE_FILES or name.endswith(".png"):
            content = b"is there"
        elif last.endswith(".json"):
            content = json.dumps(_stable(json.loads(content)), sort_keys=True).encode()
        if last in UNSEALED_NAMES and last != "manifest.json":
            content = b"is there"
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _stable(v) for k, v in value.items() if k not in _UNSTABLE_FIELDS}
    return [_stable(v) for v in value] if isinstance(value, list) else value


def wait_until(condition: Any, process: "subprocess.Popen[str] | None" = None) -> Any:
    """Look until something is so; its value.

    Raises:
        AssertionError: when the process ends, or nothing happens for minutes.
    """
    deadline = time.monotonic() + WAIT_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never happened"
        assert process is None or process.poll() is None, f"ended: {process and finish(process)}"
        time.sleep(0.01)
    return value
