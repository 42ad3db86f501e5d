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

STEPS = ("onnx", "nir")


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
        return {one["file"]: (one["text"], one["executed"]) for one in files}

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


def test_options_without_effect_are_refused(model, speech, tmp_path, capfd):
    file = str(tmp_path / "model.spikes")
    assert run(["export", "--model", model, "--out", file]) == 0
    published = Location.of(tmp_path / "given")
    engine = published.child("model.spikes")
    engine.write_bytes(Path(file).read_bytes())
    out = ["--out", str(tmp_path / "out")]
    transcribe, export = ["transcribe", speech["one"], "--model"], ["export", *out, "--model"]
    for command, said in (
        ([*transcribe, file, "--int8"], "--int8: "),
        (
            [*transcribe, file, "--features", "x", "--evaluation", "y"],
            "--features and --evaluation",
        ),
        ([*transcribe, published.uri, "--int8"], "has float32 weights"),
        ([*export, model, "--format", "nir", "--evaluation", "x"], "--evaluation: --format nir"),
        *(([*export, model, "--format", to, "--int8"], f"--int8: --format {to}") for to in STEPS),
    ):
        capfd.readouterr()
        assert run(command) == 2
        told = capfd.readouterr().err
        assert said in told, told


def test_an_engine_file_may_lie_on_s3(model, speech, tmp_path, s3_server, capfd):
    there = Location.of(s3_server.uri).child("engines", "model.spikes")
    assert run(["export", "--model", model, "--out", there.uri]) == 0
    texts = []
    for address in (model, there.uri):
        capfd.readouterr()
        assert run(["transcribe", "--json", "--model", address, speech["one"]]) == 0
        texts.append(json.loads(capfd.readouterr().out)["files"][0]["executed"])
    assert texts[0] == texts[1]
    assert run(["transcribe", "--model", f"{there.uri}x.spikes", speech["one"]]) == 2
    there.write_bytes(b"something else")
    assert run(["transcribe", "--model", there.uri, speech["one"]]) == 2
    assert f"{there.uri} is no engine file" in capfd.readouterr().err
