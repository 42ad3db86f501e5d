"""Huge pages for a training process's large tensors.

A training step allocates and frees sequences of 50 to 100 MB, and glibc maps and unmaps each:
the kernel then clears them in pages of 4 kB, which is up to a quarter of a step on two cores.
With this tunable glibc asks for pages of 2 MB. It is read when a process starts, so it is given
to the processes started for training; elsewhere than on glibc it does nothing.
"""

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import ParamSpec, TypeVar

_VARIABLE = "GLIBC_TUNABLES"
_TUNABLE = "glibc.malloc.hugetlb"

P = ParamSpec("P")
R = TypeVar("R")


def environment() -> dict[str, str]:
    """Variables to start a training process with; what a person set there is kept."""
    tunables = os.environ.get(_VARIABLE, "")
    if _TUNABLE in tunables:
        return {_VARIABLE: tunables}
    return {_VARIABLE: ":".join(filter(None, [tunables, f"{_TUNABLE}=1"]))}


@contextmanager
def _inherited() -> Iterator[None]:
    before = os.environ.get(_VARIABLE)
    os.environ.update(environment())
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before


def call(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a module's function in a fresh process that has huge pages, and wait for it.

    What it logs goes to stderr.
    """
    context = multiprocessing.get_context("spawn")
    log = partial(logging.basicConfig, level=logging.INFO, format="%(message)s")
    with _inherited(), ProcessPoolExecutor(1, mp_context=context, initializer=log) as pool:
        return pool.submit(function, *args, **kwargs).result()
