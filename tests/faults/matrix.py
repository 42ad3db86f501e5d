"""The fault matrix: each row does one bad thing for real, and compares what comes of it.

A row returns what happened in a few words; it fails by raising.
"""

import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import s3fs

from featurize import locations
from featurize.lease import Claim, Owner
from featurize.locations import Location
from tests.faults.workplace import Workplace, finish, wait_until
from tests.harness.processes import descendants
from tests.harness.s3 import FaultProxy, Misbehaviour, S3Process

FEATURIZE = ["featurize"]
TRAIN = ["featurize", "train"]
ALL = ["featurize", "train", "evaluate"]


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        fault: what is done.
        run: does it.
        is_long: starts Ray or Prefect, or takes minutes; left out of the tests by default.
    """

    fault: str
    run: Callable[[Workplace], str]
    is_long: bool = False


def _kill_at_changes(place: Workplace, name: str, before: list[str], stages: list[str]) -> str:
    """Kill the driver before one of the changes that its last stage makes to a disk."""
    expected = place.undisturbed(stages)
    first = place.num_changes(before) if before else 0
    last = place.num_changes(stages)
    points = sorted(
        place.rng.sample(range(first + 1, last + 1), min(place.num_points, last - first))
    )
    for point in points:
        runs = place.fresh(name)
        ended = place.run(runs, stages, fault={"below": runs, "count": point})
        assert ended.code == -signal.SIGKILL, ended
        place.must(runs, stages)
        place.compare(runs, expected)
    return f"killed at {len(points)} of {last - first} changes to the disk; resumed"


def kill_driver_in_featurize(place: Workplace) -> str:
    return _kill_at_changes(place, "kill-featurize", [], FEATURIZE)


def kill_driver_in_training(place: Workplace) -> str:
    return _kill_at_changes(place, "kill-train", FEATURIZE, TRAIN)


def kill_driver_in_evaluation(place: Workplace) -> str:
    return _kill_at_changes(place, "kill-evaluate", TRAIN, ALL)


def kill_twice(place: Workplace) -> str:
    expected, total = place.undisturbed(TRAIN), place.num_changes(TRAIN)
    for _ in range(place.num_points):
        runs = place.fresh("kill-twice")
        for _ in range(2):
            point = place.rng.randrange(1, total // 2)
            place.run(runs, TRAIN, fault={"below": runs, "count": point})
        place.must(runs, TRAIN)
        place.compare(runs, expected)
    return f"{place.num_points} times, then resumed"


def _signal_in_training(place: Workplace, name: str, number: int, code: int) -> str:
    expected = place.undisturbed(TRAIN)
    runs = place.fresh(name)
    process = place.start(runs, TRAIN)
    wait_until(
        lambda: list(Path(runs).glob("training/*/checkpoints/epoch-0000/state.json")), process
    )
    process.send_signal(number)
    ended = finish(process)
    assert ended.code in (code, 0), ended
    assert "Traceback" not in ended.said, ended.said
    assert not list(Path(runs).rglob("*.partial"))
    place.must(runs, TRAIN)
    place.compare(runs, expected)
    return f"ended with {ended.code}, then resumed"


def interrupt(place: Workplace) -> str:
    return _signal_in_training(place, "sigint", signal.SIGINT, 130)


def flipped_bit(place: Workplace) -> str:
    """Damage every file of a feature set and a model in turn; repair."""
    from flows.integrity import inspect, repair, stage_locations
    from tests.harness.tiny import HERE

    runs = place.fresh("flipped")
    place.must(runs, TRAIN)
    count = 0
    for location in stage_locations(Location.of(runs)):
        for name in place.rng.sample(sorted(location.files()), min(place.num_points, 5)):
            file = location.child(name)
            if not file.exists():
                continue  # dropped with its checkpoint
            content = bytearray(file.read_bytes())
            content[place.rng.randrange(len(content) // 4, len(content))] ^= 0x10
            file.write_bytes(bytes(content))
            found = [damage.file for damage in inspect(location).damage]
            assert found == [name], found
            assert repair(location, HERE)[1].is_sound
            count += 1
    place.must(runs, TRAIN)
    weights = {n: d for n, d in place.undisturbed(TRAIN).items() if "checkpoints/" not in n}
    found_after = {n for n in Location.of(runs).files() if "checkpoints/" not in n}
    assert found_after == set(weights)
    return f"{count} files, each named, each redone"


def same_stage_twice(place: Workplace) -> str:
    """Five times, in fact."""
    expected = place.undisturbed(TRAIN)
    for _ in range(place.num_points):
        runs = place.fresh("twice")
        for process in [place.start(runs, TRAIN) for _ in range(3)]:
            ended = finish(process)
            assert ended.code == 0, ended
        place.compare(runs, expected)
    return "three at once; one worked, the others used its result"


def kill_one_of_two(place: Workplace) -> str:
    expected, total = place.undisturbed(TRAIN), place.num_changes(TRAIN)
    for _ in range(place.num_points):
        runs = place.fresh("one-of-two")
        point = place.rng.randrange(1, total)
        doomed = place.start(runs, TRAIN, fault={"below": runs, "count": point})
        other = place.start(runs, TRAIN)
        ended = finish(other)
        assert ended.code == 0, ended
        finish(doomed)
        place.compare(runs, expected)
    return "one killed while the other waited; the other took over"


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


def _faketime() -> str | None:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return str(found[0]) if found else None


def clock_moved(place: Workplace) -> str:
    """Days ahead, then years back, then running fifty times as fast."""
    library = _faketime()
    if library is None:
        raise SkippedRow("libfaketime is not installed (Debian: apt install libfaketime)")
    expected = place.undisturbed(TRAIN)
    total = place.num_changes(TRAIN)
    runs = place.fresh("clock")
    for offset in ("+3d", "-9y", "+0 x50"):
        fake = {"LD_PRELOAD": library, "FAKETIME": offset}
        point = place.rng.randrange(1, total // 2)
        place.run(runs, TRAIN, fault={"below": runs, "count": point}, environment=fake)
    place.must(runs, TRAIN, environment={"LD_PRELOAD": library, "FAKETIME": "-2d"})
    place.compare(runs, expected)
    return "3 days ahead, 9 years back, 50 times as fast, each then killed; resumed"


def disk_full(place: Workplace) -> str:
    """A tmpfs that is too small, then grown."""
    expected = place.undisturbed(TRAIN)
    mount = place.folder / "small"
    mount.mkdir(exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)], capture_output=True
    )
    if made.returncode:
        raise SkippedRow("mounting a tmpfs needs root")
    try:
        refusals = 0
        for kilobytes in (64, 128):
            resize = f"remount,size={kilobytes}k"
            subprocess.run(["mount", "-o", resize, str(mount)], check=True)
            ended = place.run(str(mount / "runs"), TRAIN)
            if ended.code:
                refusals += 1
                assert ended.code == 2, ended
                assert "space" in ended.said, ended.said
        assert refusals, "the disk was never full"
        subprocess.run(["mount", "-o", "remount,size=64m", str(mount)], check=True)
        place.must(str(mount / "runs"), TRAIN)
        place.compare(str(mount / "runs"), expected)
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)
    return f"refused {refusals} times in a sentence, went on when there was room"


class SkippedRow(Exception):
    """A row that cannot be run here, and why."""


class _Store:
    """An S3 server behind a proxy, and the environment that reaches it."""

    def __init__(self, place: Workplace) -> None:
        folder = place.folder / f"s3-{secrets.token_hex(4)}"
        (folder / "bucket").mkdir(parents=True)
        key, secret = secrets.token_hex(10), secrets.token_hex(20)
        self.server = S3Process(folder, key, secret)
        self.proxy = FaultProxy(self.server.endpoint)
        self.runs = f"s3://bucket/{secrets.token_hex(4)}"
        self.environment = {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.proxy.endpoint,
        }

    def compare(self, place: Workplace, expected: dict[str, str]) -> None:
        with _variables(self.environment):
            place.compare(self.runs, expected)


@contextmanager
def _store(place: Workplace) -> Iterator[_Store]:
    store = _Store(place)
    try:
        yield store
    finally:
        store.proxy.stop()
        store.server.stop()


@contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    # Both keep a client of the store before.
    locations._s3_filesystem.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _with_misbehaviour(place: Workplace, rule: Misbehaviour) -> str:
    expected = place.undisturbed(TRAIN)
    with _store(place) as store:
        store.proxy.rule = rule
        place.must(store.runs, TRAIN, environment=store.environment)
        faults, requests = store.proxy.num_faults, store.proxy.num_requests
        assert faults, "nothing happened"
        store.proxy.rule = lambda number, method, path: None
        store.compare(place, expected)
    return f"{faults} of {requests} requests; finished at the first attempt"


def s3_500(place: Workplace) -> str:
    return _with_misbehaviour(place, lambda number, method, path: 500 if number % 5 == 0 else None)


def s3_503(place: Workplace) -> str:
    return _with_misbehaviour(place, lambda number, method, path: 503 if number % 4 == 0 else None)


def s3_slow(place: Workplace) -> str:
    return _with_misbehaviour(place, lambda number, method, path: 0.5 if number % 6 == 0 else None)


def s3_cut(place: Workplace) -> str:
    return _with_misbehaviour(
        place, lambda number, method, path: "reset" if method == "GET" and number % 9 == 0 else None
    )


def _restart_server(place: Workplace, method: str, at: int) -> str:
    """Kill the server at the n-th request of a kind, and start it again."""
    expected = place.undisturbed(TRAIN)
    restarts = 0
    for _ in range(max(1, place.num_points // 4)):
        with _store(place) as store:
            seen = 0
            wanted = at + place.rng.randrange(8)

            def rule(
                number: int, verb: str, path: str, store: _Store = store, wanted: int = wanted
            ) -> None:
                nonlocal seen, restarts
                seen += verb == method and ".lease-" not in path
                if verb == method and seen == wanted:
                    store.server.kill()
                    store.server.start()
                    restarts += 1

            store.proxy.rule = rule
            ended = place.run(store.runs, TRAIN, environment=store.environment)
            if ended.code:
                assert ended.code == 2, ended
                place.must(store.runs, TRAIN, environment=store.environment)
            store.compare(place, expected)
    assert restarts
    return f"restarted {restarts} times"


def s3_restarted_while_writing(place: Workplace) -> str:
    return _restart_server(place, "PUT", 4)


def s3_restarted_while_reading(place: Workplace) -> str:
    return _restart_server(place, "GET", 12)


def s3_away(place: Workplace) -> str:
    """The server is gone for good in the middle; back when the command is given again."""
    expected = place.undisturbed(FEATURIZE)
    with _store(place) as store:
        store.proxy.rule = lambda number, method, path: (
            store.server.kill() if number == 25 else None
        )
        ended = place.run(store.runs, FEATURIZE, environment=store.environment)
        assert ended.code == 2, ended
        assert "AWS_ENDPOINT_URL" in ended.said, ended.said
        store.server.start()
        place.must(store.runs, FEATURIZE, environment=store.environment)
        store.compare(place, expected)
    return "refused in a sentence; resumed when it was back"


def kill_driver_on_s3(place: Workplace) -> str:
    """Kill the driver at its n-th request."""
    expected = place.undisturbed(TRAIN)
    with _store(place) as store:
        place.must(store.runs, TRAIN, environment=store.environment)
        total = store.proxy.num_requests
    for _ in range(place.num_points):
        with _store(place) as store:
            point = place.rng.randrange(1, int(0.9 * total))
            doomed = place.start(store.runs, TRAIN, environment=store.environment)
            wait_until(partial(_has_seen, store.proxy, point), doomed)
            doomed.kill()
            finish(doomed)
            place.must(store.runs, TRAIN, environment=store.environment)
            store.compare(place, expected)
    return f"killed at {place.num_points} of {total} requests; resumed"


def _has_seen(proxy: FaultProxy, num_requests: int) -> bool:
    return proxy.num_requests >= num_requests


def same_stage_twice_on_s3(place: Workplace) -> str:
    expected = place.undisturbed(TRAIN)
    with _store(place) as store:
        for process in [
            place.start(store.runs, TRAIN, environment=store.environment) for _ in range(2)
        ]:
            ended = finish(process)
            assert ended.code == 0, ended
        store.compare(place, expected)
    return "two at once; one worked, the other used its result"


def kill_featurize_process(place: Workplace) -> str:
    expected = place.undisturbed(FEATURIZE)
    runs = place.fresh("worker-process")
    marker = place.folder / "worker-killed"
    marker.unlink(missing_ok=True)
    fault = {"rename": r"shard-0000[23]\.parquet$", "once": str(marker)}
    ended = place.run(runs, FEATURIZE, fault=fault, fan_out="processes")
    assert marker.exists()
    assert ended.code == 2, ended
    assert "process died" in ended.said, ended.said
    place.must(runs, FEATURIZE, fan_out="processes")
    place.compare(runs, expected)
    return "said so in a sentence; the same command went on"


def _ray_worker(
    place: Workplace, name: str, pattern: str, stages: list[str], **options: int | str
) -> str:
    """SIGKILL whichever Ray worker is about to rename a file, once."""
    expected = place.undisturbed(stages, **options)
    runs = place.fresh(name)
    marker = place.folder / f"{name}-killed"
    marker.unlink(missing_ok=True)
    fault = {"rename": pattern, "once": str(marker)}
    ended = place.run(runs, stages, fault=fault, **options)
    assert marker.exists(), f"no worker came that far: {ended}"
    assert ended.code == 0, ended
    place.compare(runs, expected)
    return "finished at the first attempt"


def kill_featurize_ray_worker(place: Workplace) -> str:
    return _ray_worker(place, "ray-shard", r"shard-00002\.parquet$", FEATURIZE, fan_out="ray")


def kill_rank_0_in_checkpoint(place: Workplace) -> str:
    pattern = r"epoch-0001/optimizer\.safetensors$"
    return _ray_worker(place, "rank-0", pattern, TRAIN, workers=2)


def kill_rank_0_before_state(place: Workplace) -> str:
    return _ray_worker(place, "rank-0-state", r"epoch-0001/state\.json$", TRAIN, workers=2)


def _kill_descendant(place: Workplace, name: str, mark: str, may_finish: bool) -> str:
    expected = place.undisturbed(TRAIN, workers=2)
    runs = place.fresh(name)
    process = place.start(runs, TRAIN, workers=2)
    wait_until(lambda: list(Path(runs).glob("training/*/checkpoints/epoch-0000")), process)
    victims = descendants(process.pid, mark)
    assert victims, f"no process {mark}"
    os.kill(place.rng.choice(victims), signal.SIGKILL)
    ended = finish(process)
    assert may_finish or ended.code in (0, 2), ended
    if ended.code:
        place.must(runs, TRAIN, workers=2)
    place.compare(runs, expected)
    return (
        "finished at the first attempt" if not ended.code else "said so; the same command went on"
    )


def kill_training_worker(place: Workplace) -> str:
    return _kill_descendant(place, "training-worker", "RayTrainWorker", may_finish=True)


def kill_ray_node(place: Workplace) -> str:
    return _kill_descendant(place, "raylet", "raylet/raylet", may_finish=False)


def kill_driver_of_ray(place: Workplace) -> str:
    """The workers outlive their driver for a while; the next run must not suffer from them."""
    expected = place.undisturbed(TRAIN, workers=2)
    runs = place.fresh("ray-driver")
    process = place.start(runs, TRAIN, workers=2)
    wait_until(lambda: list(Path(runs).glob("training/*/checkpoints/epoch-0000")), process)
    process.kill()
    finish(process)
    place.must(runs, TRAIN, workers=2)
    place.compare(runs, expected)
    return "the same command went on"


def kill_prefect_server(place: Workplace) -> str:
    """Kill the server when the first shard stands; a new one serves the next attempt."""
    from flows.embedded_server import start_server, wait_until_ready

    expected = place.undisturbed(FEATURIZE)
    runs = place.fresh("prefect")
    shards = "featurize/*/shard-00000.parquet"
    with _variables({"PREFECT_HOME": str(place.folder / "prefect-home")}):
        codes = []
        for is_doomed in (True, False):
            server = start_server()
            try:
                wait_until_ready(server)
                process = place.start(
                    runs,
                    FEATURIZE,
                    environment={"PREFECT_API_URL": server.api_url},
                    through_prefect=True,
                )
                if is_doomed:
                    wait_until(lambda: list(Path(runs).glob(shards)), process)
                    server.process.kill()
                codes.append(finish(process).code)
            finally:
                server.stop()
    assert codes[1] == 0, codes
    place.compare(runs, expected)
    return "the run ended; the same command went on" if codes[0] else "the run finished without it"


ROWS: dict[str, Row] = {
    "driver-featurize": Row("SIGKILL of the driver while it featurizes", kill_driver_in_featurize),
    "driver-train": Row("SIGKILL of the driver while it trains", kill_driver_in_training),
    "driver-evaluate": Row("SIGKILL of the driver while it evaluates", kill_driver_in_evaluation),
    "driver-twice": Row("SIGKILL of the driver, and of the one that resumed", kill_twice, True),
    "driver-s3": Row("SIGKILL of the driver at a request to S3", kill_driver_on_s3),
    "featurize-process": Row("SIGKILL of a featurize worker process", kill_featurize_process),
    "featurize-ray": Row("SIGKILL of a featurize Ray worker", kill_featurize_ray_worker, True),
    "rank-0": Row("SIGKILL of rank 0 in a checkpoint", kill_rank_0_in_checkpoint, True),
    "rank-0-state": Row("SIGKILL of rank 0 before one counts", kill_rank_0_before_state, True),
    "training-worker": Row("SIGKILL of a training worker", kill_training_worker, True),
    "ray-node": Row("SIGKILL of the Ray node", kill_ray_node, True),
    "ray-driver": Row("SIGKILL of the driver of Ray workers", kill_driver_of_ray, True),
    "prefect-server": Row("SIGKILL of the Prefect server", kill_prefect_server, True),
    "s3-500": Row("S3 answers 500 to every fifth request", s3_500),
    "s3-503": Row("S3 answers 503 to every fourth request", s3_503),
    "s3-slow": Row("S3 answers slowly", s3_slow, True),
    "s3-cut": Row("S3 cuts answers short", s3_cut),
    "s3-writing": Row("S3 server killed and restarted mid-upload", s3_restarted_while_writing),
    "s3-reading": Row("S3 server killed and restarted mid-read", s3_restarted_while_reading),
    "s3-away": Row("S3 server gone", s3_away, True),
    "disk-full": Row("disk full", disk_full),
    "clock": Row("clock moved", clock_moved),
    "twice": Row("the same stages started three times at once", same_stage_twice),
    "twice-s3": Row("the same stages started twice at once on S3", same_stage_twice_on_s3),
    "one-of-two": Row("two at once, one killed", kill_one_of_two),
    "dead-machine": Row("lease held by a machine that is gone", holder_on_a_dead_machine, True),
    "sigint": Row("SIGINT by a person", interrupt),
    "flipped-bit": Row("a flipped bit at rest", flipped_bit),
}
