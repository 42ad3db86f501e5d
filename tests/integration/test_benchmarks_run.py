"""Every benchmark runs at toy sizes and writes its page; the figures decide nothing here."""

import subprocess
import sys
from pathlib import Path

import pytest

from featurize.featurize import featurize
from featurize.stage import FanOut, Location
from tests.harness import tiny
from training.models.model_config import ModelConfig
from training.train import train

pytest.importorskip("tabulate", reason="the packages of the bench extra are not installed")

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


def run(name, tmp_path, *arguments):
    page = tmp_path / f"{name}.md"
    page.write_text("# Old\n\n## Notes\n\n- what a person wrote\n")
    module = f"tests.benchmarks.bench_{name}"
    command = [sys.executable, "-m", module, *arguments, "--small", "--record", str(page)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    text = page.read_text()
    assert f"python -m {module}" in text
    assert text.endswith("\n## Notes\n\n- what a person wrote\n")
    return text


@pytest.mark.parametrize(
    "name", ["recurrence", "features", "event_driven", "scaling", "plan", "projection"]
)
def test_a_benchmark_without_inputs_runs(name, tmp_path):
    page = run(name, tmp_path)
    assert page.count("\n|") > 6


def test_trained_models_and_features_are_measured(tmp_path):
    """An epoch on a feature set, and the engine of a spiking model that was trained on it."""
    runs = Location.of(tmp_path / "runs")
    corpus = Location.of(tiny.make_corpus(tmp_path / "corpus"))
    features = featurize(tiny.FEATURES, corpus, runs, fan_out=FanOut(kind="sequential")).location
    settings = ("train.objective=ctc", "train.target_delay=null", "train.batch_size=1")
    changed = [part for text in settings for part in ("--set", text)]
    page = run("epoch", tmp_path, str(features), *changed)
    assert "| reading" in page
    spiking = tiny.TRAINING.model_copy(update={"model": ModelConfig(model="v2", hidden_size=8)})
    model = train(spiking, features, runs, tiny.HERE).location
    page = run("event_driven", tmp_path, "--model", str(model), "--peer-hidden", "5")
    assert "| engine, int8 " in page
    assert "dense networks: 2 x 5" in page


def test_a_server_is_measured(tmp_path):
    runs = Location.of(tmp_path / "runs")
    corpus = Location.of(tiny.make_corpus(tmp_path / "corpus"))
    features = featurize(tiny.FEATURES, corpus, runs, fan_out=FanOut(kind="sequential")).location
    spiking = tiny.TRAINING.model_copy(update={"model": ModelConfig(model="v2", hidden_size=8)})
    model = train(spiking, features, runs, tiny.HERE).location
    speech = corpus.child("test-tiny").uri
    page = run("serve", tmp_path, "--model", str(model), "--speech", speech)
    assert "| 100.0% " in page
