"""A search with Ray Tune over real trainings: every trial's epochs are visible to Tune."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas
import pytest

from featurize.featurize import featurize
from featurize.stage import FanOut, Location, PipelineError, ray_session, read_manifest
from flows.overrides import apply_overrides
from flows.recipes import recipe_named
from tests.harness import tiny
from training.manifest import TrainManifest

NUM_EPOCHS = 3
EXAMPLE = Path(__file__).parents[2] / "examples" / "tune.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("example_tune", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    root = tmp_path_factory.mktemp("tune")
    corpus = Location.of(tiny.make_corpus(root / "corpus"))
    runs = Location.of(root / "runs")
    return featurize(tiny.FEATURES, corpus, runs, fan_out=FanOut(kind="sequential")).location


def recipe(*more):
    settings = (
        *("models=gru", "train.model.hidden_size=6", "train.objective=ctc", "train.batch_size=4"),
        f'train.curriculum=[{{"num_epochs": {NUM_EPOCHS}}}]',
        *("workers.threads_per_worker=1", *more),
    )
    return apply_overrides(recipe_named("demo"), settings)


def checked(found, runs, num_trials):
    """Every trial's epochs as Tune saw them are those of its training."""
    assert (len(found), found.num_errors) == (num_trials, 0)
    trained = [read_manifest(run, TrainManifest) for run in runs.child("training").children()]
    errors = {tuple(metrics.dev_error for metrics in one.metrics) for one in trained}
    seen = {tuple(result.metrics_dataframe["dev_error"]) for result in found}
    assert all(len(trial) == NUM_EPOCHS for trial in seen)
    assert seen == errors
    best = found.get_best_result("dev_error", "min").metrics["dev_error"]
    assert best == min(trial[-1] for trial in seen)


@pytest.mark.integration
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_four_trials_and_their_metrics(example, features, tmp_path):
    runs = Location.of(tmp_path / "runs")
    space = dict(
        example.values_of(text)
        for text in (
            "train.optimizer.learning_rate=1e-3..1e-2",
            "train.model.hidden_size=4,8",
        )
    )
    with ray_session(2):
        found = example.search(recipe(), features.uri, runs, space, 4, 0)
        checked(found, runs, 4)
        again = example.search(recipe(), features.uri, runs, space, 4, 0)
    checked(again, runs, 4)


@pytest.mark.integration
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_the_command_as_it_is_documented(features, tmp_path):
    """With relative addresses, from another folder than the trials work in."""
    (tmp_path / "features").symlink_to(features.path)
    settings = ("models=gru", "train.model.hidden_size=6", "train.objective=ctc")
    settings += ("train.batch_size=4", 'train.curriculum=[{"num_epochs": 1}]')
    command = [sys.executable, str(EXAMPLE), "--recipe", "demo", "--features", "features"]
    command += [part for setting in settings for part in ("--set", setting)]
    command += ["--runs", "runs", "--trials", "1", "--search", "train.model.hidden_size=5"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"\d%  train.model.hidden_size=5\n$", done.stdout)
    assert len(list((tmp_path / "runs" / "training").glob("*/manifest.json"))) == 1
    wrong = [*command[:3], "dem", *command[4:]]
    done = subprocess.run(wrong, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("tune: no recipe 'dem'")
    assert done.stderr.count("\n") == 1


@pytest.mark.integration
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_workers_of_ray_train_report_to_tune(example, features, tmp_path):
    runs = Location.of(tmp_path / "runs")
    two = recipe("workers.num_workers=2", "workers.cpus_per_worker=0.5")
    space = dict([example.values_of("train.model.hidden_size=5")])
    with ray_session(2):
        checked(example.search(two, features.uri, runs, space, 1, 0), runs, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("key=a..b", "LOW..HIGH are two numbers"),
        ("key=0..1", "0 < LOW < HIGH"),
        ("key=3..1", "0 < LOW < HIGH"),
        ("key", "give KEY=a,b,c"),
        ("=1,2", "give KEY=a,b,c"),
    ],
)
def test_a_malformed_search_is_refused(example, text, said):
    with pytest.raises(PipelineError, match=re.escape(said)):
        example.values_of(text)


def test_the_epoch_that_training_keeps_counts(example):
    """Neither the last one, nor one that costs more than the budget."""

    def result(errors, affordable):
        epochs = pandas.DataFrame({"dev_error": errors, "is_affordable": affordable})
        return SimpleNamespace(metrics_dataframe=epochs)

    assert example.error_of(result([0.5, 0.2, 0.3], [True, True, True])) == 0.2
    assert example.error_of(result([0.1, 0.4, 0.6], [False, True, True])) == 0.4
    assert example.error_of(result([0.1], [False])) is None
    assert example.error_of(SimpleNamespace(metrics_dataframe=None)) is None
