"""Fan-out: order, bounds, progress and failure."""

import os
import threading
import time

import pytest

from featurize.stage import FanOut, PipelineError, run_fan_out, worker_pool

KINDS = ("sequential", "threads", "processes")


def square(number):
    return number * number


def refuse_three(number):
    if number == 3:
        raise PipelineError("three is refused")
    return number


def die(number):
    os._exit(1)


@pytest.mark.parametrize("kind", KINDS)
def test_results_come_in_the_order_of_the_items(kind):
    reports = []
    results = run_fan_out(
        square, range(20), FanOut(kind=kind, num_workers=2), lambda *done: reports.append(done)
    )
    assert results == [n * n for n in range(20)]
    assert reports == [(n, 20) for n in range(1, 21)]
    assert run_fan_out(square, [], FanOut(kind=kind)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_failure_is_raised(kind):
    with pytest.raises(PipelineError, match=r"^three is refused$"):
        run_fan_out(refuse_three, range(5), FanOut(kind=kind, num_workers=2))


def test_what_is_in_flight_is_bounded():
    """No item is taken from the queue before a worker is free for it."""
    active, most, lock = 0, 0, threading.Lock()

    def work(number):
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        time.sleep(0)
        with lock:
            active -= 1
        return number

    run_fan_out(work, range(50), FanOut(kind="threads", num_workers=3))
    assert 1 <= most <= 3


def test_a_dead_process_is_said_to_have_died():
    with pytest.raises(PipelineError, match="process ended"):
        run_fan_out(die, [1, 2], FanOut(kind="processes", num_workers=2))


@pytest.mark.integration
def test_ray_keeps_order_and_raises_the_failure_itself():
    fan_out = FanOut(kind="ray", num_workers=2)
    with worker_pool(fan_out):  # keeps one Ray running for both
        assert run_fan_out(square, range(6), fan_out) == [n * n for n in range(6)]
        with pytest.raises(PipelineError, match=r"^three is refused$"):
            run_fan_out(refuse_three, range(5), fan_out)
