"""What lies in the working folder, or in a folder of PYTHONPATH, is not what is run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spikeline_start import module_command

SPIKELINE = Path(sys.executable).with_name("spikeline")
NAMESAKES = ("featurize", "training", "evaluation", "flows", "infra", "prefect", "ray", "torch")


@pytest.fixture
def hostile(tmp_path):
    """A folder of namesakes, files and packages, which say so when they are executed."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    source = f"import pathlib\npathlib.Path({str(tmp_path)!r}, 'executed').touch()\n"
    for number, name in enumerate(NAMESAKES):
        file = folder / name / "__init__.py" if number % 2 else folder / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
    return folder


def environment(folder, tmp_path):
    return {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "OMP_NUM_THREADS": "1",
    }


def test_a_module_of_ours_finds_what_is_installed(hostile, tmp_path):
    (hostile / "probe.py").write_text(
        "import importlib.util, json, subprocess, sys\n"
        "origins = {name: importlib.util.find_spec(name).origin for name in sys.argv[1:]}\n"
        "print(json.dumps(origins))\n"
    )
    done = subprocess.run(
        module_command("probe", *NAMESAKES, "random", "probe"),
        cwd=hostile,
        env=environment(hostile, tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    origins = {name: Path(origin) for name, origin in json.loads(done.stdout).items()}
    found_here = {name for name, origin in origins.items() if origin.is_relative_to(hostile)}
    assert found_here == {"probe"}  # a person's own module is still found


@pytest.mark.integration
@pytest.mark.timeout(1200)
def test_stages_run_from_a_folder_of_namesakes(hostile, tmp_path):
    def run(*arguments):
        command = [str(SPIKELINE), *arguments, "--json"]
        done = subprocess.run(
            command,
            cwd=hostile,
            env=environment(hostile, tmp_path),
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert not (tmp_path / "executed").exists(), arguments
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    corpus, runs = str(tmp_path / "corpus"), str(tmp_path / "runs")
    run("corpus", "synthesize", corpus, "--minutes", "0.5", "--speakers", "10", "--layout", "timit")
    recipe = ("--recipe", "demo", "--runs", runs)
    features = run("featurize", *recipe, "--corpus", corpus)
    model = run(
        *("train", *recipe, "--features", features["location"], "--set", "models=gru"),
        *("--set", "train.model.hidden_size=16"),
        *("--set", 'train.curriculum=[{"num_epochs":1,"chunk_frames":100}]'),
    )
    location = model["models"]["gru"]["location"]
    run("evaluate", *recipe, "--model", location, "--features", features["location"])
