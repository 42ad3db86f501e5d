"""Start-up and memory of the engine, each measured in a process of its own.

Start-up: from starting the interpreter to the scores of the first frame, from an engine file,
without torch. Memory: what loading the file and running it adds to the process's peak, after it has
imported the same and run a tiny engine.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pydantic import Field

from evaluation.engine.engine_file import EngineData, write_engine
from evaluation.engine.forced_density import forced_engine
from featurize.stage import PipelineError, TypedConfig

_FIRST_FRAME = """
import sys
import numpy as np
from evaluation.engine.engine import Engine
from evaluation.engine.engine_file import read_engine
engine = Engine(read_engine(sys.argv[1]))
engine.advance(np.zeros((1, engine.description.num_features), np.float32), engine.stream())
assert "torch" not in sys.modules
"""

_MEMORY = """
import json, sys
import numpy as np
from evaluation.engine.engine import Engine
from evaluation.engine.engine_file import read_engine

def peak_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

def run(path, num_frames):
    engine = Engine(read_engine(path))
    stream = engine.stream()
    noise = np.random.default_rng(0).standard_normal((50, engine.description.num_features))
    for _ in range(num_frames // 50):
        engine.advance(noise.astype(np.float32), stream)

run(sys.argv[1], 50)
before = peak_kib()
run(sys.argv[2], int(sys.argv[3]))
print(json.dumps([before, peak_kib()]))
"""


class Footprint(TypedConfig):
    """One engine file's start-up and memory."""

    precision: str = Field(description="Of the weights.")
    first_start_s: float | None = Field(
        description="Interpreter to first frame with nothing compiled yet; empty: not measured."
    )
    start_s: float = Field(description="The same from the second start on, median.")
    weights_mib: float = Field(description="Size of the weights.")
    added_mib: float = Field(description="What the engine adds to the process's peak memory.")
    process_mib: float = Field(description="Peak memory of the process, interpreter included.")


def measure_footprint(data: EngineData, *, num_starts: int, with_first: bool) -> Footprint:
    """Measure an engine in processes of its own.

    Args:
        data: the engine.
        num_starts: starts with machine code on disk; the median counts.
        with_first: measure a start without machine code as well (some ten seconds).
    """
    with tempfile.TemporaryDirectory(prefix="spikeline-bench-") as folder:
        path, tiny = Path(folder) / "engine.spikes", Path(folder) / "tiny.spikes"
        path.write_bytes(write_engine(data))
        tiny.write_bytes(write_engine(forced_engine(8, 8, 1, 8, 0.1, data.description.precision)))
        first_s = None
        if with_first:
            first_s = _timed(_FIRST_FRAME, path, cache=Path(folder) / "cache")
        starts = sorted(_timed(_FIRST_FRAME, path) for _ in range(num_starts + 1))
        before, after = json.loads(_run(_MEMORY, str(tiny), str(path), "500"))
    return Footprint(
        precision=data.description.precision,
        first_start_s=first_s,
        start_s=starts[len(starts) // 2],
        weights_mib=data.weight_bytes / 2**20,
        added_mib=(after - before) / 1024,
        process_mib=after / 1024,
    )


def _timed(script: str, path: Path, cache: Path | None = None) -> float:
    started = time.perf_counter()
    _run(script, str(path), cache=cache)
    return time.perf_counter() - started


def _run(script: str, *arguments: str, cache: Path | None = None) -> str:
    environment = dict(os.environ)
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = str(cache)
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise PipelineError(f"the measured process failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout
