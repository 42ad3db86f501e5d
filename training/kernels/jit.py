"""Compiling kernels with numba: no Python lock held, machine code kept between processes.

Machine code lies in a directory of its own, named by a hash of every source in this package:
numba alone would look only at the file of the kernel itself and reuse stale code after a
change in a helper, or after an upgrade that keeps time stamps. The directory is private to
the user, outside the installation (which may be read-only); where none can be written,
kernels are compiled in every process.
"""

import functools
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import config as numba_config

logger = logging.getLogger(__name__)

Kernel = TypeVar("Kernel", bound=Callable[..., object])


def _source_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _is_private(directory: Path) -> bool:
    """Whether only this user can write there; cached code is executed, so nobody else may."""
    if not hasattr(os, "getuid"):
        return True
    status = directory.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


@functools.cache
def cache_directory() -> Path | None:
    """Where machine code is kept, or None where no private directory can be written.

    ``NUMBA_CACHE_DIR`` is taken first, then the user's cache directory, then the temporary one.
    """
    candidates = []
    if os.environ.get("NUMBA_CACHE_DIR"):
        candidates.append(Path(os.environ["NUMBA_CACHE_DIR"]))
    home = Path(os.path.expanduser("~"))
    candidates.append(Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache"))
    user = os.getuid() if hasattr(os, "getuid") else "user"
    shared = Path(tempfile.gettempdir()) / f"spikeline-{user}"
    for candidate in (*candidates, shared):
        directory = candidate / "spikeline-kernels" / _source_hash()
        try:
            if candidate is shared:  # whose parent everybody may write to
                candidate.mkdir(exist_ok=True, mode=0o700)
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryFile(dir=directory):
                pass
        except OSError:
            continue
        if _is_private(directory) and (candidate is not shared or _is_private(candidate)):
            return directory
    logger.warning("no private writable cache directory: kernels are compiled in every process")
    return None


def kernel(function: Kernel | None = None, *, allocates: bool = True) -> Any:
    """Compile on first call, without the Python lock, and keep the machine code.

    Args:
        function: what to compile; None where options are given.
        allocates: whether it makes arrays. One that makes none counts no references: numba would
            count, atomically, each time an array is taken from a named tuple, which takes longer
            than the arithmetic does.
    """
    if function is None:
        return functools.partial(kernel, allocates=allocates)
    options = {"nogil": True, "error_model": "numpy", "_nrt": allocates}
    directory = cache_directory()
    if directory is None:
        return numba.njit(**options)(function)
    before = numba_config.CACHE_DIR
    numba_config.CACHE_DIR = str(directory)
    try:
        return numba.njit(cache=True, **options)(function)
    finally:
        numba_config.CACHE_DIR = before


def helper(function: Kernel | None = None, *, allocates: bool = True) -> Any:
    """Compile as part of the kernels that call it; ``allocates`` as for ``kernel``."""
    if function is None:
        return functools.partial(helper, allocates=allocates)
    options = {"nogil": True, "error_model": "numpy", "_nrt": allocates}
    return numba.njit(forceinline=True, **options)(function)
