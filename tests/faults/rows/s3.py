"""An S3 server that fails, is slow, dies and comes back, behind a proxy that counts requests."""

import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from tests.faults.rows.row import FEATURIZE, TRAIN, Row
from tests.faults.workplace import WAIT_S, Workplace, variables, wait_until
from tests.harness.s3 import FaultProxy, Misbehaviour, S3Process


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
        with variables(self.environment):
            place.compare(self.runs, expected)


@contextmanager
def _store(place: Workplace) -> Iterator[_Store]:
    store = _Store(place)
    try:
        yield store
    finally:
        store.proxy.stop()
        store.server.stop()


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


def _restart_server(place: Workplace, method: str) -> str:
    """Kill the server in the middle of a random request of a kind, and start it again."""
    expected = place.undisturbed(TRAIN)
    with _store(place) as store:
        counted = _RequestCount(method)
        store.proxy.rule = counted
        place.must(store.runs, TRAIN, environment=store.environment)
    num_resumed = 0
    for _ in range(place.num_points):
        with _store(place) as store:
            strike = partial(_restart, store.server)
            rule = _RequestCount(method, place.rng.randrange(1, counted.seen + 1), strike)
            store.proxy.rule = rule
            ended = place.run(store.runs, TRAIN, environment=store.environment)
            assert ended.code in (0, 2), ended
            assert rule.seen >= rule.wanted, "the server was never killed"
            if ended.code:
                num_resumed += 1
                place.must(store.runs, TRAIN, environment=store.environment)
            store.compare(place, expected)
    return (
        f"{place.num_points} times, in one of {counted.seen} {method} requests; "
        f"{place.num_points - num_resumed} finished at the first attempt, {num_resumed} resumed"
    )


def _restart(server: S3Process) -> None:
    server.kill()
    server.start()


@dataclass
class _RequestCount:
    """Counts requests of a method, and picks one of them.

    Attributes:
        wanted: the number of the picked one, 0 for none.
        strike: what is done in its middle.
    """

    method: str
    wanted: int = 0
    strike: Callable[[], None] | None = None
    seen: int = 0

    def __call__(self, number: int, method: str, path: str) -> Callable[[], None] | None:
        # How often a lease is renewed depends on the time a run takes.
        if method != self.method or ".lease-" in path:
            return None
        self.seen += 1
        return self.strike if self.seen == self.wanted else None


def s3_restarted_while_writing(place: Workplace) -> str:
    return _restart_server(place, "PUT")


def s3_restarted_while_reading(place: Workplace) -> str:
    return _restart_server(place, "GET")


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
            doomed.send_signal(signal.SIGKILL)
            doomed.finish(WAIT_S)
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
            ended = process.finish(WAIT_S)
            assert ended.code == 0, ended
        store.compare(place, expected)
    return "two at once; one worked, the other used its result"


ROWS = {
    "driver-s3": Row("SIGKILL of the driver at a request to S3", kill_driver_on_s3),
    "s3-500": Row("S3 answers 500 to every fifth request", s3_500),
    "s3-503": Row("S3 answers 503 to every fourth request", s3_503),
    "s3-slow": Row("S3 answers slowly", s3_slow),
    "s3-cut": Row("S3 cuts answers short", s3_cut),
    "s3-writing": Row("S3 server killed and restarted mid-upload", s3_restarted_while_writing),
    "s3-reading": Row("S3 server killed and restarted mid-read", s3_restarted_while_reading),
    "s3-away": Row("S3 server gone", s3_away),
    "twice-s3": Row("the same stages started twice at once on S3", same_stage_twice_on_s3),
}
