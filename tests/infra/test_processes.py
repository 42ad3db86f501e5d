"""Processes that a later command stops: the right one, and only it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.processes import start_process, stop_process

STUBBORN = """
import signal, time
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
print("ready", flush=True)
while True:
    time.sleep(1)
"""


def test_a_process_outlives_its_command_and_is_stopped_by_its_record(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start_process("sleeper", ["sleep", "600"], log, {"PATH": "/usr/bin:/bin"})
    assert process.is_alive
    stop_process(process, patience_s=30)
    assert not process.is_alive
    stop_process(process, patience_s=30)


def test_one_that_ignores_requests_is_ended_by_force(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start_process("stubborn", [sys.executable, "-c", STUBBORN], log, {})
    while "ready" not in log.read_text():
        assert process.is_alive
    stop_process(process, patience_s=0.1)
    assert not process.is_alive


def test_another_process_with_the_same_number_is_never_signalled(tmp_path: Path) -> None:
    process = start_process("sleeper", ["sleep", "600"], tmp_path / "log", {})
    try:
        stale = process.model_copy(update={"start_ticks": process.start_ticks - 1})
        assert not stale.is_alive
        stop_process(stale, patience_s=0.1)
        assert process.is_alive
    finally:
        stop_process(process, patience_s=30)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_the_worker_of_a_container_ends_as_one(ending: signal.Signals, tmp_path: Path) -> None:
    """When one process ends by itself the other is stopped, and the exit code says so."""
    program = (
        "import signal, sys\n"
        "from infra.worker import ProcessSet\n"
        "processes = ProcessSet()\n"
        "processes.stop_on(signal.SIGTERM)\n"
        "processes.start(['sleep', '600'])\n"
        "processes.start([sys.executable, '-c', 'import sys; sys.stdin.read(); sys.exit(3)'])\n"
        "print('ready', flush=True)\n"
        "sys.exit(processes.wait())\n"
    )
    whole = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert whole.stdout is not None
    assert whole.stdin is not None
    assert whole.stdout.readline() == "ready\n"
    if ending == signal.SIGTERM:
        whole.terminate()
        assert whole.wait(timeout=1200) == 0
    else:
        whole.stdin.close()  # the second process reads its end, and exits with 3
        assert whole.wait(timeout=1200) == 3
