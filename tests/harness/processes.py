"""Processes as Linux shows them under /proc."""

import os
from pathlib import Path


def descendants(pid: int, mark: str = "") -> list[int]:
    """Living processes below one, near ones first, with a word on their command line."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may hold anything.
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in ("Z", "X"):
            parents[int(stat.parent.name)] = int(parent)
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return [child for child in found[1:] if mark in command_line(child)]


def command_line(pid: int) -> str:
    """A process's command line, as anyone may read it; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def processes_with(variable: str, value: str) -> list[int]:
    """Other living processes with an inherited environment variable, whoever their parent is."""
    wanted = f"{variable}={value}".encode()
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in environ.read_bytes().split(b"\0"):
                found.append(int(environ.parent.name))
        except OSError:
            continue  # gone, or someone else's
    return [pid for pid in found if pid != os.getpid()]


def num_open_files() -> int:
    """File descriptors of this process."""
    return len(os.listdir("/proc/self/fd")) - 1  # less the listing's own


def resident_mib() -> float:
    """Memory that this process has in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20
