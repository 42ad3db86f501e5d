"""What an exported engine makes of garbage, and whether its memory stays flat.

In a process of its own, from an engine file, without torch: every input is fed to a recogniser in
blocks, its answer or its error is noted, and how far the process's peak memory rose. The long
one is hours of zeros.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from pydantic import Field

from evaluation.engine.engine_file import EngineData, write_engine
from featurize.stage import PipelineError, TypedConfig

_SCRIPT = """
import json, sys
import numpy as np
from evaluation.engine.recognizer import Recognizer
from featurize.stage import PipelineError

def peak_mib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

recognizer = Recognizer.from_file(sys.argv[1])
rate, rng = recognizer.sample_rate_hz, np.random.default_rng(0)
minute = np.zeros(60 * rate, np.float32)
# A minute of noise and one of zeros first: what every stream needs is there then.
for samples in (0.1 * rng.standard_normal(60 * rate), minute):
    recognizer.feed(samples)
recognizer.result()
inputs = {
    "nothing": [np.zeros(0)],
    "one sample": [np.zeros(1)],
    "a sample that is not a number": [np.array([0.0, np.nan, 0.0])],
    "a sample that is infinite": [np.array([0.0, np.inf])],
    "a second of silence": [np.zeros(rate)],
    "ten seconds of noise clipped to -1 and 1": [np.sign(rng.standard_normal(10 * rate))],
    "ten seconds of noise 10^30 too loud": [1e30 * rng.standard_normal(10 * rate)],
    f"{sys.argv[2]} hours of zeros": [minute] * round(60 * float(sys.argv[2])),
}
found = []
for name, blocks in inputs.items():
    before = peak_mib()
    try:
        for block in blocks:
            recognizer.feed(block)
        heard = recognizer.result()
        said = f"answers, {len(heard.symbols)} symbols for {heard.audio_s:,.1f} s"
    except PipelineError as error:
        said = f"refuses: {error}"
        recognizer.result()
    found.append({"fed_in": name, "outcome": said, "added_mib": peak_mib() - before})
assert "torch" not in sys.modules
print(json.dumps(found))
"""

FLAT_MIB = 1.0
"""Peak memory that an input may add: a page here or there, nothing that grows with it."""


class GarbageOutcome(TypedConfig):
    """One input that is no speech."""

    fed_in: str = Field(description="What.")
    outcome: str = Field(description="Answer or error.")
    added_mib: float = Field(description="What it added to the peak memory of the process.")


def feed_garbage(data: EngineData, hours_of_zeros: float) -> tuple[GarbageOutcome, ...]:
    """Feed an engine everything that is no speech.

    Args:
        data: an engine that listens to samples.
        hours_of_zeros: length of the last input.

    Raises:
        PipelineError: when the process fails, which no input may make it do.
    """
    with tempfile.TemporaryDirectory(prefix="spikeline-bench-") as folder:
        path = Path(folder) / "engine.spikes"
        path.write_bytes(write_engine(data))
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, str(path), f"{hours_of_zeros:g}"],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise PipelineError(f"garbage stopped the engine: {done.stderr.strip().splitlines()[-1]}")
    return tuple(GarbageOutcome.model_validate(one) for one in json.loads(done.stdout))
