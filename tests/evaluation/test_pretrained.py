"""The model that comes with spikeline: whole, small, and recognising real speech."""

import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from kaldialign import edit_distance
from scipy.signal import resample_poly

import spikeline
from evaluation.engine.transcriber import Transcriber
from evaluation.published import CARD_NAME, ENGINE_NAME, shipped_model
from flows.cli import run
from tests.harness.real_speech import recordings, transcripts

FOLDER = Path(shipped_model().path)
MAX_BYTES = 6_000_000


def test_it_is_whole_and_small():
    assert run(["verify", str(FOLDER)]) == 0
    packed = sum(len(zlib.compress(file.read_bytes())) for file in FOLDER.iterdir())
    assert packed < MAX_BYTES
    for file in FOLDER.iterdir():
        assert not re.search(rb"/(root|home|work|tmp)/", file.read_bytes()), file


def test_its_card_names_data_licence_errors_and_limits():
    _, head, text = (FOLDER / CARD_NAME).read_text().split("---\n", 2)
    assert yaml.safe_load(head)["license"] == "cc-by-4.0"
    for named in (
        *("V. Panayotov", "CC BY 4.0", "| phone errors |", "| word errors |", "## Limits"),
        *("million multiplications per second of speech", "infra/pretrained/make.sh", "test-mini"),
    ):
        assert named in text


def test_without_a_model_its_name_is_said(tmp_path, capfd):
    """At another rate, in two channels, with nothing to hear."""
    noise = 0.001 * np.random.default_rng(0).standard_normal((22050, 2))
    soundfile.write(tmp_path / "quiet.wav", noise, 22050)
    assert run(["transcribe", "--json", str(tmp_path / "quiet.wav")]) == 0
    told = capfd.readouterr()
    assert json.loads(told.out)["files"][0]["audio_s"] == pytest.approx(1.0)
    assert "the one that comes with spikeline" in told.err
    assert "trained on 5.0 hours of LibriSpeech" in told.err


def test_python_takes_it_too():
    model = spikeline.load()
    assert "LibriSpeech" in model.trained_on
    scores = model.score(np.zeros(16_000, np.float32))
    assert scores.log_probs_TO.shape[1] == 1000
    assert model.stream(8_000).result().words == ()


def test_real_speech_is_recognised_as_its_card_says():
    """Within ten points: these are sixteen utterances, the card's are all 153."""
    stated = re.search(r"\| word errors \| ([\d.]+)%", (FOLDER / CARD_NAME).read_text())
    said = transcripts("test-mini")
    transcriber = Transcriber.from_file(FOLDER / ENGINE_NAME)
    num_errors = num_words = 0
    for path in recordings("test-mini", 8)[::2]:
        samples, _ = soundfile.read(path, dtype="float32")
        transcriber.feed(samples)
        words = said[path.stem]
        num_errors += edit_distance(words, list(transcriber.result().words))["total"]
        num_words += len(words)
    assert abs(num_errors / num_words - float(stated[1]) / 100) < 0.1


def test_another_rate_changes_little(tmp_path, capfd):
    """Filters take a little off the highest frequencies, and spikes are all or nothing."""
    path = recordings("test-mini", 8)[-1]
    samples, rate = soundfile.read(path, dtype="float32")
    other = tmp_path / "speech.wav"
    soundfile.write(other, resample_poly(samples, 441, 160), 44_100)
    assert rate == 16_000
    assert run(["transcribe", "--json", str(path), str(other)]) == 0
    first, second = (one["symbols"] for one in json.loads(capfd.readouterr().out)["files"])
    assert edit_distance(first, second)["total"] <= 0.25 * len(first)
