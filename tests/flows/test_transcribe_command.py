"""Several files at once: what can be recognised is given, the rest named, the exit code says so."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from featurize.featurize import featurize
from featurize.stage import Location
from flows.cli import run
from tests.harness.tiny import FEATURES, HERE, TRAINING, make_corpus
from training.models.model_config import ModelConfig
from training.train import train


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A trained spiking model."""
    folder = tmp_path_factory.mktemp("model")
    runs = Location.of(folder / "runs")
    features = featurize(FEATURES, Location.of(make_corpus(folder / "corpus")), runs)
    small = ModelConfig(model="v2", hidden_size=6, num_layers=1)
    config = TRAINING.model_copy(update={"model": small})
    return train(config, features.location, runs, HERE).location.uri


@pytest.fixture
def speech(tmp_path) -> dict[str, str]:
    rng = np.random.default_rng(0)
    files = {name: str(tmp_path / f"{name}.wav") for name in ("one", "bad", "cut", "two")}
    for name in ("one", "two", "cut"):
        soundfile.write(files[name], 0.1 * rng.standard_normal(24000), 16000)
    Path(files["bad"]).write_text("text")
    whole = Path(files["cut"]).read_bytes()
    Path(files["cut"]).write_bytes(whole[: len(whole) // 3])
    return files


def test_the_others_are_given_and_the_bad_ones_named(model, speech, capfd):
    code = run(["transcribe", "--model", model, *speech.values()])
    told = capfd.readouterr()
    assert code == 2
    lines = told.out.splitlines()
    assert lines[0].startswith(f"{speech['one']}: ")
    assert lines[1].startswith(f"{speech['two']}: ")
    assert f"{speech['cut']}: truncated_audio" in told.err
    assert "2 of 4 files could not be recognised" in told.err
    assert "Traceback" not in told.err


def test_as_json_both_are_listed(model, speech, capfd):
    code = run(["transcribe", "--model", model, "--json", *speech.values()])
    result = json.loads(capfd.readouterr().out)
    assert code == 2
    assert [one["file"] for one in result["files"]] == [speech["one"], speech["two"]]
    assert [one["file"] for one in result["failed"]] == [speech["bad"], speech["cut"]]


def test_a_bad_file_does_not_change_what_follows(model, speech, capfd):
    def texts(*names):
        run(["transcribe", "--model", model, "--json", *(speech[name] for name in names)])
        files = json.loads(capfd.readouterr().out)["files"]
        return {one["file"]: one["text"] for one in files}

    assert texts("one", "bad", "cut", "two") == texts("one", "two")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_stream_is_written_in_place(model, speech, monkeypatch):
    screen, heard = Terminal(), iter("abcdefghijklmnopqrstuvwxyz" * 99)
    monkeypatch.setattr("sys.stderr", screen)
    # So small a model hears nothing; a growing text stands in.
    monkeypatch.setattr("evaluation.engine.transcriber.spell", lambda *_: next(heard))
    assert run(["transcribe", "--model", model, "--stream", speech["one"]]) == 0
    assert "\ra\x1b[K\rb\x1b[K" in screen.getvalue()
    assert screen.getvalue().endswith("\r\x1b[K")


@pytest.mark.parametrize("file_format", ["onnx", "nir"])
def test_int8_is_refused_where_weights_stay_float32(model, tmp_path, capfd, file_format):
    out = tmp_path / "out"
    arguments = ["--model", model, "--format", file_format, "--int8", "--out", str(out)]
    assert run(["export", *arguments]) == 2
    assert "--int8 is for --format engine alone" in capfd.readouterr().err
    assert not out.exists()
