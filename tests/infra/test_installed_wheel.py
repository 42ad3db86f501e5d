"""A wheel of this project, in an environment that holds nothing else, works from any folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.harness.namesakes import HostileFolder

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_S = 3600


@pytest.fixture(scope="module")
def interpreter():
    """The Python whose environment is made: SPIKELINE_WHEEL_PYTHON, or the one that runs this."""
    return os.environ.get("SPIKELINE_WHEEL_PYTHON", sys.executable)


@pytest.fixture(scope="module")
def spikeline(interpreter, tmp_path_factory):
    """The command of a fresh environment into which the wheel was installed from its file."""
    made = tmp_path_factory.mktemp("wheel")
    tree = made / "tree"
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(tree)], check=True)
    subprocess.run([interpreter, "-m", "venv", str(made / "environment")], check=True)
    python = made / "environment" / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(made), str(tree)], check=True)
    (wheel,) = made.glob("spikeline-*.whl")
    pins = ["--only-binary=:all:", "-c", str(tree / "constraints.txt")]
    subprocess.run([*pip, "install", *pins, f"{wheel}[synthesis]"], check=True)
    shutil.rmtree(tree)
    subprocess.run([*pip, "check"], check=True)
    return str(python.with_name("spikeline"))


@pytest.mark.cluster
@pytest.mark.timeout(TIMEOUT_S)
def test_stages_of_a_wheel_run_from_a_folder_of_namesakes(spikeline, tmp_path):
    HostileFolder.made(tmp_path).run_stages(spikeline)


@pytest.mark.cluster
@pytest.mark.timeout(TIMEOUT_S)
def test_the_demo_of_a_wheel_runs_from_a_folder_of_namesakes(spikeline, tmp_path):
    hostile = HostileFolder.made(tmp_path)
    runs = tmp_path / "demo"
    outcome = hostile.run((spikeline, "demo", "--runs", str(runs)))
    assert {row["model"] for row in outcome["metrics"]["models"]} >= {"v2", "gru"}
    assert Path(outcome["evaluation"]["location"]).is_dir()


@pytest.mark.cluster
@pytest.mark.timeout(TIMEOUT_S)
def test_the_model_of_a_wheel_works_at_once(spikeline, tmp_path):
    hostile = HostileFolder.made(tmp_path)
    noise = 0.1 * np.random.default_rng(0).standard_normal(44_100)
    soundfile.write(tmp_path / "noise.wav", noise, 44_100)
    outcome = hostile.run((spikeline, "transcribe", str(tmp_path / "noise.wav")))
    (heard,) = outcome["files"]
    assert heard["words"] is not None
    assert heard["multiplications_per_s"] > 1e6
