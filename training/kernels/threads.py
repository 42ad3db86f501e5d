"""Running kernels on several threads, each on its own share of the utterances.

Utterances do not interact in any recurrence, so a thread runs its share through the whole
sequence without waiting for the others. Plain Python threads do that (kernels hold no Python
lock): unlike numba's threading layers they may be used from several threads at once, survive
a fork, need no OpenMP runtime beside PyTorch's, and never spin.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}


def _forget_pools() -> None:
    # A forked child has the pool objects of its parent, but none of their threads.
    global _lock
    _lock = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)


def _pool(num_threads: int) -> ThreadPoolExecutor:
    with _lock:
        if num_threads not in _pools:
            _pools[num_threads] = ThreadPoolExecutor(num_threads, "spikeline-kernel")
        return _pools[num_threads]


def num_threads() -> int:
    """Threads a kernel may use: as many as PyTorch's own operators."""
    return max(1, torch.get_num_threads())


def run(calls: Sequence[Callable[[], object]]) -> None:
    """Run the calls side by side and wait for all; the last one on this thread.

    Raises:
        BaseException: whatever a call raised, after all have ended.
    """
    if not calls:
        return
    futures: list[Future[object]] = []
    if len(calls) > 1:
        pool = _pool(num_threads())
        futures = [pool.submit(call) for call in calls[:-1]]
    try:
        calls[-1]()
    finally:
        for future in futures:
            future.exception()
    for future in futures:
        future.result()
