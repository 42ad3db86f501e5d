"""SIGTERM around Ray: an interrupt inside, the handler of before at the end."""

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from featurize.termination import TerminationAfterRay


class Ended(BaseException):
    """What a supervisor's handler raises, as Prefect's does."""


@pytest.fixture(autouse=True)
def supervisor() -> Iterator[None]:
    def end(_number: int, _frame: object) -> None:
        raise Ended

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def rays_handler(number: int, _frame: object) -> None:
    raise SystemExit(number)


def terminated_at_work(stopped: list[str]) -> None:
    with TerminationAfterRay() as termination:
        signal.signal(signal.SIGTERM, rays_handler)
        termination.take_over()
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            signal.raise_signal(signal.SIGTERM)  # impatience does not break the shutdown
            stopped.append("workers")
            raise


def terminated_at_the_start() -> None:
    with TerminationAfterRay():
        signal.signal(signal.SIGTERM, rays_handler)
        signal.raise_signal(signal.SIGTERM)


def failing(error: BaseException) -> None:
    with TerminationAfterRay() as termination:
        termination.take_over()
        raise error


def test_the_work_is_interrupted_and_stops_before_the_handler_of_before_runs() -> None:
    stopped: list[str] = []
    with pytest.raises(Ended):
        terminated_at_work(stopped)
    assert stopped == ["workers"]


def test_a_signal_while_ray_starts_counts_as_well() -> None:
    with pytest.raises(Ended):
        terminated_at_the_start()


def test_the_handler_of_before_is_back_without_a_signal() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with TerminationAfterRay() as termination:
        termination.take_over()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ValueError("mistake")])
def test_other_ends_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as passed:
        failing(error)
    assert passed.value is error


def test_outside_the_main_thread_nothing_is_touched() -> None:
    def work() -> bool:
        with TerminationAfterRay() as termination:
            termination.take_over()
            return threading.current_thread() is not threading.main_thread()

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(work).result()
