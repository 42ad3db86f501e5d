"""A function in a fresh process with the variables that training processes are started with."""

import logging
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial

from training.process_environment import environment


@contextmanager
def _inherited():
    ours = environment()
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def call(function, *args, **kwargs):
    """Call a module's function there and wait for it; what it logs goes to stderr."""
    context = multiprocessing.get_context("spawn")
    log = partial(logging.basicConfig, level=logging.INFO, format="%(message)s")
    with _inherited(), ProcessPoolExecutor(1, mp_context=context, initializer=log) as pool:
        return pool.submit(function, *args, **kwargs).result()
