"""The Ray node of this machine is killed while a driver waits: it says so, and lives on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
DRIVER = """
import os, signal, sys, time
from featurize.stage import PipelineError
from featurize.stage import FanOut, run_fan_out
from featurize.stage import call_on_ray, ray_session
from tests.harness.processes import descendants, num_open_files

def work(seconds):
    time.sleep(seconds)
    return seconds

def kill_node(done, total):
    os.kill(descendants(os.getpid(), "raylet/raylet")[0], signal.SIGKILL)

with ray_session(1):
    call_on_ray(lambda: None)
before = num_open_files()
try:
    run_fan_out(work, [0, 600], FanOut(kind="ray", num_workers=1), kill_node)
except PipelineError as error:
    print(error)
# The same process may go on with another node.
assert run_fan_out(work, [0, 0], FanOut(kind="ray", num_workers=1)) == [0, 0]
print("went on", num_open_files() - before)
"""

pytestmark = pytest.mark.integration


@pytest.mark.timeout(600)
def test_a_driver_outlives_its_node():
    driver = subprocess.run(
        [sys.executable, "-c", DRIVER],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert driver.returncode == 0, driver.stderr
    # Ray has its own long say first.
    assert "\nthe Ray node of this machine has ended" in "\n" + driver.stdout
    assert "went on" in driver.stdout
