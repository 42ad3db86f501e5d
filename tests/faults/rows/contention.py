"""Several runs at one location, and clocks that do not agree."""

import signal
from pathlib import Path

from featurize.stage import Location
from featurize.stage.lease import Claim
from featurize.stage.owner import Owner
from tests.faults.rows.row import FEATURIZE, TRAIN, Row, SkippedRow
from tests.faults.workplace import WAIT_S, Workplace


def same_stages_at_once(place: Workplace) -> str:
    expected = place.undisturbed(TRAIN)
    for _ in range(place.num_points):
        runs = place.fresh("twice")
        for process in [place.start(runs, TRAIN) for _ in range(3)]:
            ended = process.finish(WAIT_S)
            assert ended.code == 0, ended
        place.compare(runs, expected)
    return f"{place.num_points} times three; one worked, the others used its result"


def kill_one_of_two(place: Workplace) -> str:
    expected, total = place.undisturbed(TRAIN), place.num_changes(TRAIN)
    num_kills = 0
    for _ in range(place.num_points):
        runs = place.fresh("one-of-two")
        point = place.rng.randrange(1, total)
        doomed = place.start(runs, TRAIN, fault={"below": runs, "count": point})
        other = place.start(runs, TRAIN)
        ended = other.finish(WAIT_S)
        assert ended.code == 0, ended
        ended = doomed.finish(WAIT_S)
        assert ended.code in (-signal.SIGKILL, 0), ended
        num_kills += ended.code != 0
        place.compare(runs, expected)
    assert num_kills
    return f"{place.num_points} pairs, one killed in {num_kills}; the other took over"


def holder_on_a_dead_machine(place: Workplace) -> str:
    """A claim of a machine that is gone: only its silence tells."""
    expected = place.undisturbed(FEATURIZE)
    runs = place.fresh("dead-machine")
    place.must(runs, FEATURIZE)
    (location,) = Location.of(runs).child("featurize").children()
    location.remove()
    owner = Owner(host="gone", boot="another", pid=1, start="1")
    claim = location.parent.child(f".{location.name}.lease-{0:032x}")
    claim.write_bytes(Claim(number=1, beat=3, owner=owner).model_dump_json().encode())
    ended = place.run(runs, FEATURIZE)
    assert ended.code == 0, ended
    assert not claim.exists()
    place.compare(runs, expected)
    return "its claim expired by the waiter's own clock"


def clock_moved(place: Workplace) -> str:
    """Days ahead, then years back, then running fifty times as fast."""
    library = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
    if library is None:
        raise SkippedRow("libfaketime is not installed (Debian: apt install libfaketime)")
    expected = place.undisturbed(TRAIN)
    total = place.num_changes(TRAIN)
    offsets = ("+3d", "-9y", "+0 x50")
    num_rounds = -(-place.num_points // len(offsets))
    for _ in range(num_rounds):
        runs = place.fresh("clock")
        for offset in offsets:
            fake = {"LD_PRELOAD": str(library), "FAKETIME": offset}
            point = place.rng.randrange(1, total // 2)
            ended = place.run(runs, TRAIN, fault={"below": runs, "count": point}, environment=fake)
            assert ended.code in (-signal.SIGKILL, 0), ended
        place.must(runs, TRAIN, environment={"LD_PRELOAD": str(library), "FAKETIME": "-2d"})
        place.compare(runs, expected)
    return (
        f"3 days ahead, 9 years back, 50 times as fast, each then killed, {num_rounds} times over; "
        "resumed 2 days back"
    )


ROWS = {
    "twice": Row("the same stages started three times at once", same_stages_at_once),
    "one-of-two": Row("two at once, one killed", kill_one_of_two),
    "dead-machine": Row("lease held by a machine that is gone", holder_on_a_dead_machine),
    "clock": Row("clock moved", clock_moved),
}
