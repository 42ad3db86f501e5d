"""Variables to start a training process with: how it holds memory, and how its threads wait.

A training step allocates and frees sequences of 50 to 100 MB. glibc maps and unmaps each, and the
kernel clears every page again, which is a fifth of a step on two cores, and more where a virtual
machine's memory is only then found. With the tunables glibc asks for pages of 2 MB and keeps
what was freed for the next step, at the price of up to two fifths more memory.

OpenMP's threads spin for some milliseconds after each of PyTorch's operators. Kernels that run on
threads of their own then find the cores taken: with a layer alone, two threads are slower than
one. A short spin costs dense networks nothing, whose next operator comes at once.

Both are read when a process starts, so they are given to the processes started for training;
elsewhere than with glibc and GNU OpenMP they do nothing.
"""

import os

_MEMORY = "GLIBC_TUNABLES"
_TUNABLES = {
    "glibc.malloc.hugetlb": 1,
    "glibc.malloc.mmap_threshold": 1 << 30,  # bytes: larger tensors go back at once
    "glibc.malloc.trim_threshold": 1 << 40,  # never
}
_SPIN, _WAIT_POLICY = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"
_SPIN_COUNT = 10_000  # some ten microseconds


def environment() -> dict[str, str]:
    """Variables to start a training process with; what a person set there is kept."""
    tunables = os.environ.get(_MEMORY, "")
    missing = [f"{name}={value}" for name, value in _TUNABLES.items() if name not in tunables]
    found = {_MEMORY: ":".join(filter(None, [tunables, *missing]))}
    if _WAIT_POLICY not in os.environ:
        found[_SPIN] = os.environ.get(_SPIN, str(_SPIN_COUNT))
    return found
