"""Reads damaged inputs in a bounded process: ``python -m tests.hostile.child SPECIFICATION``.

One JSON line per input on stdout: begun, then what became of it. The process may not grow by more
than a gigabyte, spend more than a few seconds of processor time on one input, write or delete
anything outside the input's folder, unpickle, start a process or open a connection.
"""

import json
import os
import random
import resource
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

from flows.failures import explain
from tests.hostile.formats import NAMES, is_refusal, make_formats

MAX_BYTES = 2**30
MAX_CPU_S = 100
_FORBIDDEN = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn",
              "os.fork", "socket.connect", "shutil.unpack_archive")  # fmt: skip
_CHANGING = frozenset({"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.link",
                       "os.truncate", "os.chmod", "os.utime", "shutil.rmtree"})  # fmt: skip


class Guard:
    """An audit hook that notes what must not happen while an input is read."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.offences: list[str] = []
        self.is_on = False
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event in _FORBIDDEN:
            self.offences.append(f"{event} {arguments!r}"[:200])
        elif event in _CHANGING:
            paths = [a for a in arguments[:2] if isinstance(a, str | bytes | os.PathLike)]
            if event == "os.symlink":
                paths = paths[1:]
            # Removing a tree names its files relative to an open folder.
            folder = arguments[-1] if isinstance(arguments[-1], int) else -1
            base = os.readlink(f"/proc/self/fd/{folder}") if folder > 2 else os.getcwd()
            self._check(event, [os.path.join(base, os.fsdecode(path)) for path in paths])
        elif event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and isinstance(path, str | bytes):
                self._check(event, [path])

    def _check(self, event: str, paths: list[Any]) -> None:
        for path in paths:
            whole = os.path.abspath(os.fsdecode(path))
            if not whole.startswith(self.root + "/") and whole not in (self.root, "/dev/null"):
                self.offences.append(f"{event} {whole}"[:200])


def _limit_memory() -> None:
    """At most a gigabyte more data than now."""
    status = Path("/proc/self/status").read_text().splitlines()
    held = next(int(line.split()[1]) for line in status if line.startswith("VmData")) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (held + MAX_BYTES, held + MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**28, 2**28))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_cpu() -> None:
    """The kernel kills the process that spends more on one input."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(usage.ru_utime + usage.ru_stime) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (spent + MAX_CPU_S, resource.RLIM_INFINITY))


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def main() -> None:
    """Read inputs ``first`` to ``last`` of each format named in the specification."""
    specification = json.loads(sys.argv[1])
    root = Path(specification["folder"])
    names = frozenset(specification["formats"])
    assert names <= set(NAMES)
    formats = make_formats(root / "workshop", names)
    guard = Guard(root / "input")
    _warm_up(formats, root)
    _limit_memory()
    before = _peak_mib()
    for name in specification["formats"]:
        first, last = specification["ranges"][name]
        for number in range(first, last):
            _say(format=name, number=number, begun=True)
            verdict = _read(formats[name], name, number, specification["seed"], root, guard)
            _say(format=name, number=number, growth_mib=_peak_mib() - before, **verdict)


def _warm_up(formats: Any, root: Path) -> None:
    """Read every sound specimen once: what that loads and caches is not the inputs' doing."""
    for name, entry in formats.items():
        for specimen in entry.specimens:
            folder = root / "input"
            folder.mkdir(parents=True)
            assert entry.read(specimen, folder) == "read", name
            shutil.rmtree(folder)


def _read(
    entry: Any, name: str, number: int, seed: int, root: Path, guard: Guard
) -> dict[str, Any]:
    rng = random.Random(f"{seed} {name} {number}")
    data = entry.damage(rng.choice(entry.specimens), rng)
    folder = root / "input"
    folder.mkdir()
    _limit_cpu()
    guard.offences.clear()
    guard.is_on = True
    try:
        verdict = {"outcome": entry.read(data, folder)}
    except Exception as error:
        if is_refusal(error):
            verdict = {"outcome": "refused", "message": explain(error)[0]}
        else:
            verdict = {"outcome": "finding", "message": traceback.format_exc()[-4000:]}
    finally:
        guard.is_on = False
        shutil.rmtree(folder)
    if guard.offences:
        verdict = {"outcome": "finding", "message": f"did: {guard.offences[:3]}"}
    return verdict


if __name__ == "__main__":
    main()
