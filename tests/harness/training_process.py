"""A function in a fresh process with the variables that training processes are started with."""

import logging
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from unittest.mock import patch

from training.process_environment import environment


def call(function, *args, **kwargs):
    """Call a module's function there and wait for it; what it logs goes to stderr."""
    context = multiprocessing.get_context("spawn")
    log = partial(logging.basicConfig, level=logging.INFO, format="%(message)s")
    with (
        patch.dict(os.environ, environment()),
        ProcessPoolExecutor(1, mp_context=context, initializer=log) as pool,
    ):
        return pool.submit(function, *args, **kwargs).result()
