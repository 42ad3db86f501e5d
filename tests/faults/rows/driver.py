"""The driver is killed or interrupted, at its n-th change to the disk."""

import signal

from tests.faults.rows.row import ALL, FEATURIZE, TRAIN, Row
from tests.faults.workplace import Workplace


def _points_in_last_stage(
    place: Workplace, before: list[str], stages: list[str]
) -> tuple[list[int], int]:
    """Random changes to a disk among those that the last stage makes, and how many it makes."""
    first = place.num_changes(before) if before else 0
    changes = range(first + 1, place.num_changes(stages) + 1)
    drawn = place.rng.sample(changes, min(place.num_points, len(changes)))
    return sorted(drawn), len(changes)


def _kill(place: Workplace, name: str, before: list[str], stages: list[str]) -> str:
    expected = place.undisturbed(stages)
    points, total = _points_in_last_stage(place, before, stages)
    for point in points:
        runs = place.fresh(name)
        ended = place.run(runs, stages, fault={"below": runs, "count": point})
        assert ended.code == -signal.SIGKILL, ended
        place.must(runs, stages)
        place.compare(runs, expected)
    return f"killed at {len(points)} of {total} changes to the disk; resumed"


def kill_in_featurize(place: Workplace) -> str:
    return _kill(place, "kill-featurize", [], FEATURIZE)


def kill_in_training(place: Workplace) -> str:
    return _kill(place, "kill-train", FEATURIZE, TRAIN)


def kill_in_evaluation(place: Workplace) -> str:
    return _kill(place, "kill-evaluate", TRAIN, ALL)


def kill_twice(place: Workplace) -> str:
    """Kill the run that resumes as well."""
    expected, total = place.undisturbed(TRAIN), place.num_changes(TRAIN)
    num_kills = 0
    for _ in range(place.num_points):
        runs = place.fresh("kill-twice")
        for _ in range(2):
            point = place.rng.randrange(1, total // 2)
            ended = place.run(runs, TRAIN, fault={"below": runs, "count": point})
            assert ended.code in (-signal.SIGKILL, 0), ended
            num_kills += ended.code != 0
        place.must(runs, TRAIN)
        place.compare(runs, expected)
    return f"{place.num_points} runs, {num_kills} kills; resumed"


def interrupt(place: Workplace) -> str:
    """As Ctrl-C: SIGINT at a random change, in featurize, training or evaluation."""
    expected, total = place.undisturbed(ALL), place.num_changes(ALL)
    points = sorted(place.rng.sample(range(1, total + 1), min(place.num_points, total)))
    codes = []
    for point in points:
        runs = place.fresh("sigint")
        fault = {"below": runs, "count": point, "signal": signal.SIGINT}
        ended = place.run(runs, ALL, fault=fault)
        assert ended.code in (130, 0), (point, ended)
        assert "Traceback" not in ended.said, (point, ended)
        codes.append(ended.code)
        place.must(runs, ALL)
        place.compare(runs, expected)
    assert 130 in codes
    return f"interrupted at {len(points)} of {total} changes, {codes.count(130)} ended so; resumed"


ROWS = {
    "driver-featurize": Row("SIGKILL of the driver while it featurizes", kill_in_featurize),
    "driver-train": Row("SIGKILL of the driver while it trains", kill_in_training),
    "driver-evaluate": Row("SIGKILL of the driver while it evaluates", kill_in_evaluation),
    "driver-twice": Row("SIGKILL of the driver, and of the one that resumed", kill_twice),
    "sigint": Row("SIGINT by a person", interrupt),
}
