"""SIGTERM around Ray: the handler of before answers it, wherever it arrives."""

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from featurize.stage.termination import call_interruptibly, termination_handler_kept


class Ended(BaseException):
    """What a supervisor's handler raises, as Prefect's does."""


def supervisors_handler(_number: int, _frame: object) -> None:
    raise Ended


def rays_handler(number: int, _frame: object) -> None:
    raise SystemExit(number)


@pytest.fixture(autouse=True)
def supervisor() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, supervisors_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def start_ray(failure: BaseException | None = None, *, is_terminated: bool = False) -> None:
    """Take the signal, as Ray does when it starts."""
    with termination_handler_kept():
        signal.signal(signal.SIGTERM, rays_handler)
        if is_terminated:
            signal.raise_signal(signal.SIGTERM)
        if failure is not None:
            raise failure


def test_the_handler_is_back_when_ray_has_started() -> None:
    start_ray()
    assert signal.getsignal(signal.SIGTERM) is supervisors_handler


def test_a_signal_while_ray_starts_reaches_the_handler() -> None:
    with pytest.raises(Ended):
        start_ray(is_terminated=True)


@pytest.mark.parametrize("failure", [SystemExit(3), KeyboardInterrupt(), ValueError("mistake")])
def test_other_ends_pass(failure: BaseException) -> None:
    with pytest.raises(type(failure)) as passed:
        start_ray(failure)
    assert passed.value is failure
    assert signal.getsignal(signal.SIGTERM) is supervisors_handler


def test_outside_the_main_thread_nothing_is_touched() -> None:
    def work() -> bool:
        with termination_handler_kept():
            return threading.current_thread() is not threading.main_thread()

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(work).result()


def test_work_is_waited_for_and_its_error_is_raised() -> None:
    done: list[str] = []
    call_interruptibly(lambda: done.append(threading.current_thread().name))
    assert done == ["interruptible"]
    with pytest.raises(ZeroDivisionError):
        call_interruptibly(lambda: 1 // 0)


def test_a_signal_interrupts_the_wait() -> None:
    may_end = threading.Event()

    def work() -> None:
        # The signal is for the main thread, which waits by now or will before this one ends.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        may_end.wait(60)

    with pytest.raises(Ended):
        call_interruptibly(work)
    may_end.set()


def test_waiting_ends_with_the_other_s_exception():
    lost, is_at_work, may_end = Future(), threading.Event(), threading.Event()

    def work():
        is_at_work.set()
        lost.set_exception(ValueError("lost"))
        may_end.wait()

    with pytest.raises(ValueError, match="lost"):
        call_interruptibly(work, unless=lost)
    assert is_at_work.is_set()
    is_at_work.clear()
    with pytest.raises(ValueError, match="lost"):
        call_interruptibly(work, unless=lost)
    assert not is_at_work.is_set(), "begun although it was lost before"
    may_end.set()
    call_interruptibly(lambda: None, unless=Future())
