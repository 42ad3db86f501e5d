"""Doing many independent things at once: in order, in threads, in processes, or as Ray tasks.

Every way keeps a bounded number of items in flight, returns results in the order of the items,
and raises the first failure after cancelling what has not begun.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeVar, cast

from pydantic import Field

from featurize.stage.errors import PipelineError
from featurize.stage.ray_cluster import call_on_ray, ray_session
from featurize.stage.typed_config import TypedConfig

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
Progress = Callable[[int, int], None]
"""Called with (number done, number in all) after each item."""

_OUT_OF_MEMORY = (
    "a {} ended while it worked, most likely because memory ran out; use fewer workers or smaller "
    "parts (featurize.utterances_per_shard, evaluate.batch_size)"
)
_MAX_TRIES = 3


class FanOut(TypedConfig):
    """Where shards, alignments and scores are made; never changes them, so in no fingerprint."""

    kind: Literal["sequential", "threads", "processes", "ray"] = Field(
        "threads",
        description="One after another, in threads or processes of this machine, or as Ray "
        "tasks (on the cluster at RAY_ADDRESS, else on this machine). In threads, shards alone are "
        "made at once.",
    )
    num_workers: int | None = Field(
        None, ge=1, le=4096, description="Items at once; empty for one per available core."
    )

    def workers(self, num_cores: int) -> int:
        """Items at once on so many cores."""
        return self.num_workers or max(1, num_cores)


def processes_of(fan_out: FanOut | None) -> FanOut:
    """A fan-out to processes or Ray as it is; any other as this process, which uses all cores."""
    if fan_out is None or fan_out.kind not in ("processes", "ray"):
        return FanOut(kind="sequential")
    return fan_out


def available_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerPool:
    """Workers that stay while the context of :func:`worker_pool` lasts; safe from any thread.

    Attributes:
        num_workers: items worth handing in at once.
        is_apart: whether items are worked on in processes of their own.
    """

    def __init__(
        self,
        num_workers: int,
        run: Callable[[Callable[..., Any], Any], Any],
        *,
        is_apart: bool = False,
    ) -> None:
        self.num_workers = num_workers
        self.is_apart = is_apart
        self._run = run

    def run(self, work: Callable[[ItemT], ResultT], item: ItemT) -> ResultT:
        """Apply ``work`` to one item on a worker, and wait for it.

        Args:
            work: a module-level function; item and result must pickle for processes and Ray.

        Raises:
            PipelineError: when the worker ends before its work is done.
            Exception: what ``work`` raises.
        """
        return cast(ResultT, self._run(work, item))

    def run_all(
        self,
        work: Callable[[ItemT], ResultT],
        items: Sequence[ItemT],
        progress: Progress | None = None,
    ) -> list[ResultT]:
        """Apply ``work`` to every item; see :func:`run_fan_out`."""
        if self.num_workers == 1:
            results = []
            for number, item in enumerate(items, start=1):
                results.append(self.run(work, item))
                if progress is not None:
                    progress(number, len(items))
            return results
        from concurrent.futures.thread import ThreadPoolExecutor

        # One thread stands for each worker: it hands over an item and waits for the result.
        threads = ThreadPoolExecutor(self.num_workers, thread_name_prefix="fan-out")
        try:
            futures = [threads.submit(self.run, work, item) for item in items]
            for number, future in enumerate(as_completed(futures), start=1):
                future.result()
                if progress is not None:
                    progress(number, len(items))
            return [future.result() for future in futures]
        finally:
            threads.shutdown(cancel_futures=True)


@contextmanager
def worker_pool(fan_out: FanOut) -> Iterator[WorkerPool]:
    """Workers for a caller with threads of its own, such as a flow with a task per item."""
    num_workers = 1 if fan_out.kind == "sequential" else fan_out.workers(available_cores())
    if fan_out.kind == "ray":
        with ray_session(fan_out.num_workers) as ray:
            cores = int(ray.cluster_resources().get("CPU", 1))
            run = partial(_run_one_on_ray, ray)
            yield WorkerPool(fan_out.workers(cores), run, is_apart=True)
    elif fan_out.kind == "processes":
        from concurrent.futures.process import ProcessPoolExecutor
        from multiprocessing import get_context

        with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as executor:
            yield WorkerPool(num_workers, partial(_run_one_in_process, executor), is_apart=True)
    else:
        yield WorkerPool(num_workers, lambda work, item: work(item))


def _run_one_in_process(executor: Executor, work: Callable[..., Any], item: object) -> Any:
    from concurrent.futures.process import BrokenProcessPool

    try:
        return executor.submit(work, item).result()
    except BrokenProcessPool as error:
        raise PipelineError(_OUT_OF_MEMORY.format("process")) from error


def _run_one_on_ray(ray: Any, work: Callable[..., Any], item: object) -> Any:
    results = []

    def run() -> None:
        options = {"max_retries": _MAX_TRIES - 1, "scheduling_strategy": "SPREAD"}
        results.append(ray.get(ray.remote(num_cpus=1, **options)(work).remote(item)))

    try:
        call_on_ray(run)
        return results[0]
    except ray.exceptions.RayTaskError as error:
        raise (error.cause or error) from error
    except ray.exceptions.WorkerCrashedError as error:
        raise PipelineError(_OUT_OF_MEMORY.format("Ray worker")) from error
    except ray.exceptions.RayError as error:
        # Ray has tried again elsewhere by now; what is finished is found by the next run.
        raise PipelineError(
            f"the Ray cluster lost a task {_MAX_TRIES} times ({type(error).__name__}); what is "
            "finished is kept, run the stage again"
        ) from error


def run_fan_out(
    work: Callable[[ItemT], ResultT],
    items: Sequence[ItemT],
    fan_out: FanOut,
    progress: Progress | None = None,
) -> list[ResultT]:
    """Apply ``work`` to every item.

    Args:
        work: a module-level function; items and results must pickle for processes and Ray.
        progress: told after each finished item, in the caller's thread.

    Returns:
        Results in the order of the items.

    Raises:
        PipelineError: when workers end early or the Ray cluster cannot be reached.
        Exception: the first one that ``work`` raises.
    """
    with worker_pool(fan_out) as pool:
        return pool.run_all(work, items, progress)
