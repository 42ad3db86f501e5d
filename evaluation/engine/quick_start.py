"""Imports numba faster: without SciPy's linear algebra, and without looking for garbage.

Numba imports SciPy's linear algebra at its first compiled call, only to find out whether ``np.cov``
and ``np.corrcoef`` may be compiled, which nothing here uses; all other linear algebra asks again
when it is used. The collector goes through the hundred thousand objects that numba makes, none of
them garbage, again and again. From the interpreter to the scores of the first frame takes 0.67 s of
CPU time with this module and 1.20 s without (eight pairs in turns, 2 x 550).

It acts in the engine's own process alone, which listens without torch: where torch is there,
training or an evaluation runs, for which half a second is nothing, and numba and the collector are
left as they are. So they are where numba has been set up already, or looks different inside.
"""

import gc
import importlib
import sys
from typing import Any


def _refuse() -> None:
    raise ImportError


def _set_up_numba() -> None:
    if {"torch", "numba.np.arraymath", "scipy.linalg"} & sys.modules.keys():
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
