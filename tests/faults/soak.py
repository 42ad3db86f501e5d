"""``python -m tests.faults.soak``: featurize and train in a loop, with random kills.

Each round starts the stages in a process that is killed before a random change to the disk, a few
times over, and then finishes them in this process, which lives through all rounds: its open
files, threads, children and memory must come to rest.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from featurize.locations import Location
from featurize.schema import FeaturizeManifest
from featurize.shards import read_index
from featurize.stage import read_manifest
from tests.faults.stages import run_stages
from tests.faults.workplace import Workplace
from tests.harness.processes import descendants, num_open_files, resident_mib
from tests.harness.tiny import SUBSETS

TRAIN = ["featurize", "train"]
# One utterance of the corpus is broken.
NUM_UTTERANCES = sum(SUBSETS.values()) - 1
MAX_GROWTH_MIB = 64


def main() -> None:
    """Soak for a while, say what was seen, fail on any loss or leak."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="spikeline-soak-") as folder:
        place = Workplace(Path(folder), random.Random(options.seed), 1, forks=False)
        sys.exit(soak(place, options.seconds))


def soak(place: Workplace, seconds: float) -> int:
    """Rounds until the time is over, three at least; the exit code."""
    expected = place.undisturbed(TRAIN)
    total = place.num_changes(TRAIN)
    memory_mib: list[float] = []
    handles: list[int] = []
    num_kills = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(memory_mib) < 3:
        runs = place.fresh("soak")
        for _ in range(place.rng.randrange(1, 4)):
            point = place.rng.randrange(1, total)
            ended = place.run(runs, TRAIN, fault={"below": runs, "count": point})
            assert ended.code in (0, -9), ended
            num_kills += ended.code != 0
        run_stages(str(place.corpus), runs, TRAIN)
        place.compare(runs, expected)
        _check_utterances(Location.of(runs))
        memory_mib.append(resident_mib())
        handles.append(num_open_files())
        print(
            f"round {len(memory_mib)}: {num_kills} kills, {memory_mib[-1]:.0f} MiB, "
            f"{handles[-1]} open files",
            flush=True,
        )
    return _verdict(memory_mib, handles, num_kills)


def _check_utterances(runs: Location) -> None:
    (features,) = [place for place in runs.child("featurize").children() if place.is_dir()]
    manifest = read_manifest(features, FeaturizeManifest)
    names = read_index(features, manifest, manifest.subsets).utterance_ids
    assert len(names) == len(set(names)) == NUM_UTTERANCES, f"{len(names)} utterances"


def _verdict(memory_mib: list[float], handles: list[int], num_kills: int) -> int:
    """Compare the first rounds, less the very first, with the last ones."""
    count = max(1, len(memory_mib) // 4)
    growth = statistics.median(memory_mib[-count:]) - statistics.median(memory_mib[1 : 1 + count])
    problems = []
    if growth > MAX_GROWTH_MIB:
        problems.append(f"memory grew by {growth:.0f} MiB")
    if handles[-1] > handles[1]:
        problems.append(f"open files went from {handles[1]} to {handles[-1]}")
    if descendants(os.getpid()):
        problems.append(f"processes are left: {descendants(os.getpid())}")
    left = [t.name for t in threading.enumerate() if t.name in ("lease", "read-ahead")]
    if left:
        problems.append(f"threads are left: {left}")
    print(
        f"{len(memory_mib)} rounds, {num_kills} kills: every utterance once in each; memory "
        f"{growth:+.0f} MiB between early and late rounds, {handles[-1]} open files; "
        + ("; ".join(problems) or "nothing left")
    )
    return 1 if problems else 0


if __name__ == "__main__":
    main()
