"""``python -m tests.faults.soak``: featurize and train in a loop, with random kills.

Each round starts the stages in a process that is killed before a random change to the disk, a few
times over, and then finishes them in this process, which lives through all rounds: its open
files, threads, children and memory must come to rest. Some killed runs have worker processes; in
every eighth round Ray trains. No process of a round may outlive it, whoever its parent is by then.
"""

import argparse
import os
import platform
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.machine import processor
from featurize.schema import FeaturizeManifest
from featurize.shards import iter_rows
from featurize.stage import Location, read_manifest, software_versions, timestamp
from tests.faults.stages import run_stages
from tests.faults.workplace import Workplace, wait_until
from tests.harness.processes import (
    descendants,
    num_open_files,
    processes_with,
    resident_mib,
)
from tests.harness.run_state import commit
from tests.harness.tiny import SUBSETS

TRAIN = ["featurize", "train"]
# One utterance of the corpus is broken.
NUM_UTTERANCES = sum(SUBSETS.values()) - 1
MAX_GROWTH_MIB = 32
RAY_EVERY = 8
MARK = "SPIKELINE_SOAK"


@dataclass
class Seen:
    """What was seen at the end of each round, and in all.

    Attributes:
        memory_mib: in use by this process.
        handles: its open files.
        threads: its threads.
        num_kills: runs that were killed.
        num_ray_rounds: rounds with Ray.
    """

    memory_mib: list[float] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    num_kills: int = 0
    num_ray_rounds: int = 0

    @property
    def num_rounds(self) -> int:
        return len(self.memory_mib)

    def look(self) -> None:
        """Note what this process holds now."""
        self.memory_mib.append(resident_mib())
        self.handles.append(num_open_files())
        self.threads.append(threading.active_count())

    @property
    def parts(self) -> tuple[slice, slice]:
        """The early rounds, less the very first, and the late ones."""
        count = max(1, self.num_rounds // 4)
        return slice(1, 1 + count), slice(-count, None)

    @property
    def growth_mib(self) -> float:
        early, late = self.parts
        return statistics.median(self.memory_mib[late]) - statistics.median(self.memory_mib[early])

    def problems(self) -> list[str]:
        """What should not be."""
        found = []
        early, late = self.parts
        if self.growth_mib > MAX_GROWTH_MIB:
            found.append(f"memory grew by {self.growth_mib:.0f} MiB")
        for name, counts in (("open files", self.handles), ("threads", self.threads)):
            if min(counts[late]) > max(counts[early]):
                found.append(f"{name} went from {max(counts[early])} to {min(counts[late])}")
        if descendants(os.getpid()):
            found.append(f"processes are left: {descendants(os.getpid())}")
        if not self.num_kills:
            found.append("nothing was killed")
        return found


def main() -> None:
    """Soak for a while, say what was seen, fail on any loss or leak."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, help="write what was seen to this file")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    started, _ = timestamp(), commit()
    with tempfile.TemporaryDirectory(prefix="spikeline-soak-") as folder:
        os.environ[MARK] = folder
        place = Workplace(Path(folder), random.Random(options.seed), 1, forks=False)
        seen = soak(place, options.seconds)
    problems = seen.problems()
    print("; ".join(problems) or "nothing lost, nothing left")
    if options.record:
        options.record.write_text(record(seen, problems, started, options.seconds, options.seed))
    sys.exit(1 if problems else 0)


def soak(place: Workplace, seconds: float) -> Seen:
    """Rounds until the time is over, three at least."""
    seen = Seen()
    total = place.num_changes(TRAIN)
    end = time.monotonic() + seconds
    while time.monotonic() < end or seen.num_rounds < 3:
        if seen.num_rounds % RAY_EVERY == RAY_EVERY - 1:
            _ray_round(place, seen)
        else:
            _round(place, seen, total)
        wait_until(lambda: not processes_with(MARK, os.environ[MARK]))
        seen.look()
        print(
            f"round {seen.num_rounds}: {seen.num_kills} kills, {seen.memory_mib[-1]:.0f} MiB, "
            f"{seen.handles[-1]} open files, {seen.threads[-1]} threads",
            flush=True,
        )
    return seen


def _round(place: Workplace, seen: Seen, total: int) -> None:
    runs = place.fresh("soak")
    for _ in range(place.rng.randrange(1, 4)):
        fault = {"below": runs, "count": place.rng.randrange(1, total)}
        kind = place.rng.choice(("sequential", "threads", "processes"))
        ended = place.run(runs, TRAIN, fault=fault, fan_out=kind)
        # Where a worker process reached the fault first, the driver says so and ends with 2.
        assert ended.code in (0, -signal.SIGKILL, 2 if kind == "processes" else 0), ended
        seen.num_kills += ended.code != 0
    run_stages(str(place.corpus), runs, TRAIN, fan_out=place.rng.choice(("sequential", "threads")))
    place.compare(runs, place.undisturbed(TRAIN))
    _check_utterances(Location.of(runs))


def _ray_round(place: Workplace, seen: Seen) -> None:
    """Two workers train; the driver is killed when an epoch is done."""
    runs = place.fresh("soak-ray")
    process = place.start(runs, TRAIN, workers=2)
    wait_until(lambda: list(Path(runs).glob("training/*/checkpoints/epoch-*/state.json")), process)
    process.send_signal(signal.SIGKILL)
    process.finish(patience_s=60)
    seen.num_kills += 1
    seen.num_ray_rounds += 1
    place.must(runs, TRAIN, workers=2)
    place.compare(runs, place.undisturbed(TRAIN, workers=2))
    _check_utterances(Location.of(runs))


def _check_utterances(runs: Location) -> None:
    (features,) = [place for place in runs.child("featurize").children() if place.is_dir()]
    manifest = read_manifest(features, FeaturizeManifest)
    names = [row.utterance_id for row in iter_rows(features, manifest, manifest.subsets)]
    assert len(names) == len(set(names)) == NUM_UTTERANCES, f"{len(names)} utterances"


def record(seen: Seen, problems: list[str], started: str, seconds: float, seed: int) -> str:
    """What was seen, for ``evaluation/results/``."""
    versions = software_versions("ray", "torch", "pyarrow")
    early, late = seen.parts
    lines = [
        "# Soak",
        "",
        "```",
        f"python -m tests.faults.soak --seconds {seconds:.0f} --seed {seed}",
        "```",
        "",
        "Featurize and train in a loop on a tiny corpus; each round kills the run up to three "
        "times at random changes to the disk, then finishes it in the process that lives through "
        f"all rounds. Every {RAY_EVERY}th round trains with two Ray workers, and kills the driver. "
        "After each round every file is compared with that of an undisturbed run, every utterance "
        f"is counted ({NUM_UTTERANCES}, each once), and no process of the round is left.",
        "",
        f"- from {started} to {timestamp()}; commit {commit()}",
        f"- {processor()}; {platform.system()}; "
        + ", ".join(f"{n} {v}" for n, v in versions.items()),
        f"- {seen.num_rounds} rounds, {seen.num_ray_rounds} of them with Ray; {seen.num_kills} "
        "kills",
        f"- {'**FAILED**: ' + '; '.join(problems) if problems else 'nothing lost, nothing left'}",
        "",
        "| the long-lived process, median | early quarter | late quarter |",
        "|---|---|---|",
    ]
    for name, values in (
        ("memory, MiB", seen.memory_mib),
        ("open files", seen.handles),
        ("threads", seen.threads),
    ):
        medians = [f"{statistics.median(values[part]):.0f}" for part in (early, late)]
        lines.append(f"| {name} | {' | '.join(medians)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
