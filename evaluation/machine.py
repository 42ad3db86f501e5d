"""The machine, as records of measurements state it."""

import platform
from pathlib import Path


def processor() -> str:
    """The processor's name and this process's number of cores."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.exists() else ())
        if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.machine()}, {max(1, len(names))} cores"
