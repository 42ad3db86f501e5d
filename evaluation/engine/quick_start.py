"""Imports numba faster: without SciPy's linear algebra, and without looking for garbage.

Numba imports SciPy's linear algebra at its first compiled call, only to find out whether ``np.cov``
and ``np.corrcoef`` may be compiled, which nothing here uses; all other linear algebra asks again
when it is used. That is a fifth of the engine's start-up. A tenth is the collector, which goes
through the hundred thousand objects that numba makes, none of them garbage, again and again.
Where numba has been set up already, or looks different inside, nothing is done.
"""

import gc
import importlib
import sys
from typing import Any


def _refuse() -> None:
    raise ImportError


def _set_up_numba() -> None:
    if "numba.np.arraymath" in sys.modules or "scipy.linalg" in sys.modules:
        return
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        _import_numba()
    finally:
        gc.freeze()
        if was_collecting:
            gc.enable()


def _import_numba() -> None:
    linalg: Any = importlib.import_module("numba.np.linalg")
    ensure_blas = getattr(linalg, "ensure_blas", None)
    if ensure_blas is None:
        return
    linalg.ensure_blas = _refuse
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        linalg.ensure_blas = ensure_blas


_set_up_numba()
