"""What every row of the fault matrix needs: a corpus, an undisturbed result, runs to disturb."""

import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import s3fs

from featurize.stage import Location, locations
from featurize.stage.manifest import UNSEALED_NAMES
from tests.faults.run_processes import Ended, ForkedRun, Run, SpawnedRun
from tests.harness.tiny import make_corpus

# What tells when, where and how fast; everything else is the result.
_UNSTABLE_FIELDS = frozenset(
    {"created_at", "seconds", "training_seconds", "frames_per_s", "corpus", "checksums"}
    | {"manifest_sha256"}
)
_UNSTABLE_FILES = frozenset({"report.html"})
WAIT_S = 900.0
"""Where something never happens, a row fails after so long; nothing is decided by it else."""


@dataclass
class Workplace:
    """A folder for one matrix.

    Attributes:
        folder: everything is below it.
        rng: draws the kill points.
        num_points: how many in each crash row.
        forks: whether runs without processes of their own are forked from one that has everything
            imported, which saves most of their time.
    """

    folder: Path
    rng: random.Random
    num_points: int
    forks: bool = True
    environment: dict[str, str] = field(default_factory=dict)
    _undisturbed: dict[str, dict[str, str]] = field(default_factory=dict)
    _started: list[Run] = field(default_factory=list)

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
    ) -> Run:
        """Start stages in a process of their own, in a session of their own."""
        specification = {"corpus": str(self.corpus), "runs": runs, "stages": stages} | options
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **self.environment}
        variables |= environment or {}
        # Workers and what is loaded beforehand come with an interpreter of their own.
        kind = (
            ForkedRun
            if self.forks and not options and "LD_PRELOAD" not in variables
            else SpawnedRun
        )
        self._started = [run for run in self._started if run.poll() is None]
        self._started.append(kind(specification, variables, fault, self.folder))
        return self._started[-1]

    def end_all(self) -> None:
        """Kill what a row that failed has left at work, with all its children."""
        for run in self._started:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
                run.finish(WAIT_S)
        self._started.clear()

    def run(self, runs: str, stages: list[str], **options: Any) -> Ended:
        """Run stages to whatever end."""
        return self.start(runs, stages, **options).finish(WAIT_S)

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


def result_of(runs: Location) -> dict[str, str]:
    """File below the runs to the digest of what it says; times, rates and places left out."""
    found = {}
    for name, _ in runs.files().items():
        content = runs.child(name).read_bytes().replace(runs.uri.encode(), b"RUNS")
        last = name.rsplit("/", 1)[-1]
        if last in _UNSTABLE_FILES or name.endswith(".png"):
            content = b"is there"
        elif last == "metrics.parquet":
            rows = pq.read_table(pa.BufferReader(content)).to_pylist()
            content = json.dumps(_stable(rows), sort_keys=True).encode()
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


def wait_until(condition: Any, process: Run | None = None) -> Any:
    """Look until something is so; its value.

    Raises:
        AssertionError: when the process ends, or nothing happens for minutes.
    """
    deadline = time.monotonic() + WAIT_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never happened"
        assert process is None or process.poll() is None, (
            f"ended: {process and process.finish(WAIT_S)}"
        )
        time.sleep(0.01)
    return value


@contextmanager
def variables(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables of this process for a while."""
    with patch.dict(os.environ, values):
        # Both keep a client of the store before.
        locations._s3_filesystem.cache_clear()
        s3fs.S3FileSystem.clear_instance_cache()
        yield
