"""What a Prefect task run costs its flow, started as the featurize flow starts its shards."""

import time

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

_NUM_THREADS = 2
_NUM_WARMUPS = 4


@task(name="bench-task-run", cache_policy=NO_CACHE, persist_result=False)
def do_nothing(number: int) -> None:
    """A task run that is nothing else."""


@flow(name="bench-task-runs", persist_result=False)
def time_task_runs(number: int) -> float:
    """Seconds of each of so many task runs.

    Args:
        number: task runs that are timed, after a few of warm-up.
    """
    runner: ThreadPoolTaskRunner[None] = ThreadPoolTaskRunner(max_workers=_NUM_THREADS)
    with runner:
        _run(runner, _NUM_WARMUPS)
        started = time.perf_counter()
        _run(runner, number)
        return (time.perf_counter() - started) / number


def _run(runner: ThreadPoolTaskRunner[None], number: int) -> None:
    futures = [runner.submit(do_nothing, parameters={"number": n}) for n in range(number)]
    for future in futures:
        future.result()
