"""The example neuron: its step by hand, its counts two ways, and the README's command."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from evaluation.multiplications import measure_activity
from tests.harness.by_events import run_by_events
from training.models.build import build_network
from training.models.counting import NetworkShape, count_terms
from training.models.registry import MODELS, model_named
from training.train_config import TrainConfig

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "leaky_integrator.py"
# So small that the command ends in a minute; what it does is the same.
SMALL = (
    *("synthetic.minutes=1.4", "synthetic.num_speakers=20", "synthetic.seed=7"),
    *("train.model.hidden_size=8", "train.leaky.model.firing_level=0.3"),
    'train.curriculum=[{"num_epochs": 2, "chunk_frames": 100}]',
    *("evaluate.num_bootstrap=100", "workers.in_process=true"),
)


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    yield "leaky_integrator:MODEL"
    MODELS._found.clear()


def test_it_is_short():
    assert len(EXAMPLE.read_text().splitlines()) < 60


def test_its_step_by_hand(example):
    import leaky_integrator

    # leak 1/2, current 1, fires above 0.7: 0.5, then 0.75 fires and is lowered by one.
    state = leaky_integrator.State(torch.zeros(1, 1), torch.zeros(1, 1))
    trajectory = []
    for _ in range(3):
        state = leaky_integrator.step(torch.ones(1, 1), torch.tensor([0.5]), 0.7, state)
        trajectory.append((state.potential.item(), state.spikes.item()))
    assert trajectory == [(0.5, 0.0), (0.75, 1.0), (0.375, 0.0)]


def test_what_it_executes_by_events_is_what_is_audited(example):
    torch.manual_seed(0)
    settings = {"model": example, "hidden_size": 12, "dropout": 0.0, "firing_level": 0.3}
    config = TrainConfig.model_validate({"model": settings}).model
    network = build_network(config, 6, 5).eval()
    x, lengths = 2 * torch.randn(30, 1, 6), torch.tensor([30])
    with torch.inference_mode():
        output = network(x, lengths)
        shape = NetworkShape(config, 6, 5)
        (activity,) = measure_activity(shape, output.site_outputs, lengths)
        scores_TO, executed = run_by_events(network, x[:, 0])
    torch.testing.assert_close(scores_TO, output.log_probs_TBO[:, 0], rtol=1e-4, atol=1e-4)
    terms = {term.term: term for term in count_terms(shape, activity)}
    for name, counted in executed.items():
        expected = (terms[name].multiplications, terms[name].additions)
        assert (counted.multiplications, counted.additions) == expected, name
    assert all(0 < sent < 360 for sent in activity.emitted[1:])
    assert model_named(example).title == "leaky integrator"


@pytest.mark.integration
@pytest.mark.timeout(1200)
def test_the_commands_of_the_readme_put_it_into_the_table(tmp_path):
    (line,) = re.findall(
        r"^PYTHONPATH=examples spikeline .*$", (ROOT / "README.md").read_text(), re.M
    )
    assignment, program, *arguments = shlex.split(line)
    assert (assignment, program) == ("PYTHONPATH=examples", "spikeline")
    small = [part for setting in SMALL for part in ("--set", setting)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(EXAMPLE.parent),
        "PREFECT_HOME": str(tmp_path / "prefect"),
    }
    environment.pop("PREFECT_API_URL", None)
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name(program)), *arguments, *small),
            *("--runs", str(tmp_path / "runs"), "--json"),
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1100,
    )
    assert done.returncode == 0, done.stderr
    models = {model["model"]: model for model in json.loads(done.stdout)["metrics"]["models"]}
    assert set(models) == {"leaky", "gru"}
    leaky = models["leaky"]
    assert leaky["title"] == "leaky integrator"
    assert leaky["parameters"]["total"] > 0
    terms = leaky["multiplications_per_frame"]["terms"]
    # Features are multiplied, all of them; what spikes reach is added.
    assert terms["feed_forward_1"] > 0
    assert terms["feed_forward_2"] == terms["output"] == 0
    assert leaky["additions_per_frame"] > terms["feed_forward_1"]
