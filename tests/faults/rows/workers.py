"""Processes that work for a driver are killed: pool processes, Ray workers, the Ray node.

What takes Ray seconds to start is killed many times over within one training.
"""

import os
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from tests.faults.rows.row import FEATURIZE, TRAIN, Row
from tests.faults.run_processes import Run
from tests.faults.workplace import WAIT_S, Workplace, wait_until
from tests.harness.processes import descendants
from tests.harness.tiny import FEATURES, SUBSETS

NUM_SHARDS = sum(-(-size // FEATURES.utterances_per_shard) for size in SUBSETS.values())
# A file is opened under another name, renamed, and the other name removed if it is still there; a
# shard has a sidecar, a checkpoint three files. The last before state.json is there is the 8th.
SHARD_CHANGES = 6
CHECKPOINT_CHANGES = 8
NUM_EPOCHS = 24
KILLS_PER_RUN = 10
# With fewer left a run may end before it is killed: workers go on for a while without their node.
EPOCHS_TO_DIE_IN = 8

Kill = tuple[str, int]
"""Pattern of a path, and at which change of a process to such paths it dies."""


def _in_runs(num_points: int, per_run: int) -> Iterator[int]:
    """Kill points spread over runs."""
    for start in range(0, num_points, per_run):
        yield min(per_run, num_points - start)


def _kills(place: Workplace, name: str, kills: list[Kill]) -> tuple[dict[str, object], list[Path]]:
    """A fault that strikes once for each kill, and the files that tell which did."""
    markers = [place.folder / f"{name}-killed-{number}" for number in range(len(kills))]
    for marker in markers:
        marker.unlink(missing_ok=True)
    fault = [[*kill, str(marker)] for kill, marker in zip(kills, markers, strict=True)]
    return {"kills": fault}, markers


def _draw_shard_kills(place: Workplace, number: int) -> list[Kill]:
    """At most two for each shard: Ray tries a task three times."""
    shards = place.rng.sample([*range(NUM_SHARDS)] * 2, number)
    changes = [place.rng.sample(range(1, SHARD_CHANGES + 1), 2) for _ in range(NUM_SHARDS)]
    return [(rf"shard-{shard:05}\.(parquet|json)", changes[shard].pop()) for shard in shards]


def kill_featurize_process(place: Workplace) -> str:
    """A pool that lost a process gives up; the same command goes on, and loses the next one."""
    expected = place.undisturbed(FEATURIZE)
    num_points = 0
    while num_points < place.num_points:
        number = min(KILLS_PER_RUN, place.num_points - num_points)
        runs = place.fresh("worker-process")
        fault, markers = _kills(place, "worker-process", _draw_shard_kills(place, number))
        for attempt in count():
            ended = place.run(runs, FEATURIZE, fault=fault, fan_out="processes")
            if not ended.code:
                break
            assert ended.code == 2, ended
            assert "process ended" in ended.said, ended.said
            assert attempt < number, f"died more often than it was killed: {ended}"
        # A process that ends with its pool between a shard's last two changes has made the shard:
        # nobody is there to be killed at the last one. Such a kill is drawn again.
        struck = sum(marker.exists() for marker in markers)
        assert struck, "nothing was killed"
        num_points += struck
        place.compare(runs, expected)
    return f"killed {num_points} times; said so each time, and the same command went on"


def kill_featurize_ray_worker(place: Workplace) -> str:
    expected = place.undisturbed(FEATURIZE)
    num_points = 0
    for number in _in_runs(place.num_points, KILLS_PER_RUN):
        runs = place.fresh("ray-shard")
        fault, markers = _kills(place, "ray-shard", _draw_shard_kills(place, number))
        ended = place.run(runs, FEATURIZE, fault=fault, fan_out="ray")
        assert ended.code == 0, ended
        assert all(marker.exists() for marker in markers), "a worker was not killed"
        num_points += number
        place.compare(runs, expected)
    return f"killed {num_points} times; each run finished at the first attempt"


def _kill_rank_0(place: Workplace, name: str, everywhere: list[Kill]) -> str:
    """SIGKILL of rank 0, which alone writes checkpoints, again and again in one training."""
    expected = place.undisturbed(TRAIN, workers=2, num_epochs=NUM_EPOCHS)
    for number in _in_runs(place.num_points, KILLS_PER_RUN):
        runs = place.fresh(name)
        fault, markers = _kills(place, name, place.rng.sample(everywhere, number))
        ended = place.run(
            runs, TRAIN, fault=fault, workers=2, num_epochs=NUM_EPOCHS, max_failures=number
        )
        assert ended.code == 0, ended
        assert all(marker.exists() for marker in markers), "rank 0 was not killed"
        place.compare(runs, expected)
    return f"killed {place.num_points} times; each run finished at the first attempt"


def kill_rank_0_in_checkpoint(place: Workplace) -> str:
    """At any change before its state.json, which makes a checkpoint count."""
    everywhere = [
        (rf"checkpoints/epoch-{epoch:04}/", change)
        for epoch in range(NUM_EPOCHS)
        for change in range(1, CHECKPOINT_CHANGES + 1)
    ]
    return _kill_rank_0(place, "rank-0", everywhere)


def kill_rank_0_before_state(place: Workplace) -> str:
    everywhere = [(rf"epoch-{epoch:04}/state\.json$", 1) for epoch in range(NUM_EPOCHS)]
    return _kill_rank_0(place, "rank-0-state", everywhere)


def _num_epochs_done(runs: str) -> int:
    """One more than the highest epoch that has a checkpoint."""
    found = Path(runs).glob("training/*/checkpoints/epoch-*/state.json")
    return max((int(state.parent.name[-4:]) + 1 for state in found), default=0)


def _wait_for_epochs(runs: str, process: Run, more: int) -> None:
    """Until so many more epochs are done than now."""
    wanted = _num_epochs_done(runs) + more
    wait_until(lambda: _num_epochs_done(runs) >= wanted, process)


def kill_training_worker(place: Workplace) -> str:
    """Any of the workers, whatever it is at."""
    expected = place.undisturbed(TRAIN, workers=2, num_epochs=NUM_EPOCHS)
    for number in _in_runs(place.num_points, KILLS_PER_RUN):
        runs = place.fresh("training-worker")
        process = place.start(runs, TRAIN, workers=2, num_epochs=NUM_EPOCHS, max_failures=number)
        killed: set[int] = set()
        for _ in range(number):
            _wait_for_epochs(runs, process, more=1)
            victims = set(descendants(process.pid, "RayTrainWorker")) - killed
            assert victims, "no training worker"
            victim = place.rng.choice(sorted(victims))
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
        ended = process.finish(WAIT_S)
        assert ended.code == 0, ended
        place.compare(runs, expected)
    return f"killed {place.num_points} times; each run finished at the first attempt"


def _kill_and_go_on(place: Workplace, name: str, mark: str | None) -> str:
    """Kill a process of the driver's, or the driver itself, and give the same command again."""
    expected = place.undisturbed(TRAIN, workers=2, num_epochs=NUM_EPOCHS)
    num_finished = 0
    for number in _in_runs(place.num_points, KILLS_PER_RUN // 2):
        runs = place.fresh(name)
        for _ in range(number):
            if _num_epochs_done(runs) > NUM_EPOCHS - EPOCHS_TO_DIE_IN:
                place.must(runs, TRAIN, workers=2, num_epochs=NUM_EPOCHS)
                place.compare(runs, expected)
                runs = place.fresh(name)
            process = place.start(runs, TRAIN, workers=2, num_epochs=NUM_EPOCHS)
            _wait_for_epochs(runs, process, more=place.rng.randrange(1, 3))
            if mark is None:
                process.send_signal(signal.SIGKILL)
            else:
                (victim,) = descendants(process.pid, mark)
                os.kill(victim, signal.SIGKILL)
            ended = process.finish(WAIT_S)
            assert ended.code in ((-signal.SIGKILL,) if mark is None else (0, 2)), ended
            if not ended.code:
                num_finished += 1
                place.compare(runs, expected)
                runs = place.fresh(name)
        place.must(runs, TRAIN, workers=2, num_epochs=NUM_EPOCHS)
        place.compare(runs, expected)
    said = f", {num_finished} finished all the same" if num_finished else ""
    return f"killed {place.num_points} times{said}; the same command went on"


def kill_ray_node(place: Workplace) -> str:
    return _kill_and_go_on(place, "ray-node", "raylet/raylet")


def kill_driver_of_ray(place: Workplace) -> str:
    """The workers outlive their driver for a while; the next run must not suffer from them."""
    return _kill_and_go_on(place, "ray-driver", None)


ROWS = {
    "featurize-process": Row("SIGKILL of a featurize worker process", kill_featurize_process),
    "featurize-ray": Row("SIGKILL of a featurize Ray worker", kill_featurize_ray_worker),
    "rank-0": Row("SIGKILL of rank 0 in a checkpoint", kill_rank_0_in_checkpoint),
    "rank-0-state": Row("SIGKILL of rank 0 before one counts", kill_rank_0_before_state),
    "training-worker": Row("SIGKILL of a training worker", kill_training_worker),
    "ray-node": Row("SIGKILL of the Ray node", kill_ray_node),
    "ray-driver": Row("SIGKILL of the driver of Ray workers", kill_driver_of_ray),
}
