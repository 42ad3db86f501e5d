"""What lies in the working folder, or in a folder of PYTHONPATH, is not what is run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from spikeline_start import module_command
from tests.harness.namesakes import NAMESAKES, HostileFolder

SPIKELINE = Path(sys.executable).with_name("spikeline")


@pytest.fixture
def hostile(tmp_path):
    return HostileFolder.made(tmp_path)


def test_a_module_of_ours_finds_what_is_installed(hostile):
    (hostile.folder / "probe.py").write_text(
        "import importlib.util, json, subprocess, sys\n"
        "origins = {name: importlib.util.find_spec(name).origin for name in sys.argv[1:]}\n"
        "print(json.dumps(origins))\n"
    )
    done = subprocess.run(
        module_command("probe", *NAMESAKES, "random", "probe"),
        cwd=hostile.folder,
        env=hostile.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    origins = {name: Path(origin) for name, origin in json.loads(done.stdout).items()}
    found_here = {n for n, origin in origins.items() if origin.is_relative_to(hostile.folder)}
    assert found_here == {"probe"}  # a person's own module is still found


@pytest.mark.integration
@pytest.mark.timeout(1200)
def test_stages_run_from_a_folder_of_namesakes(hostile):
    hostile.run_stages(str(SPIKELINE))
