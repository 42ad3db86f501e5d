"""Audio as the recogniser reads it: whole, or refused with a name and a reason."""

import io
import sys

import numpy as np
import pytest
import soundfile

from evaluation.engine.audio_file import open_audio
from featurize.stage import PipelineError


def wav(path, num_samples=8000, rate=16000):
    samples = 0.1 * np.random.default_rng(0).standard_normal(num_samples)
    soundfile.write(path, samples, rate, subtype="PCM_16", format="WAV")
    return path


@pytest.mark.parametrize("suffix", ["wav", "ogg"])
def test_a_cut_file_is_named(tmp_path, suffix):
    whole = tmp_path / f"whole.{suffix}"
    soundfile.write(whole, 0.1 * np.random.default_rng(0).standard_normal(48000), 16000)
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with (
        pytest.raises(PipelineError, match=rf"cut.{suffix}: truncated_audio: "),
        open_audio(str(cut)),
    ):
        pass


def test_a_name_that_says_raw_is_read_by_what_it_holds(tmp_path):
    named = wav(tmp_path / "speech.wav").rename(tmp_path / "speech.raw")
    with open_audio(str(named)) as audio:
        assert sum(map(len, audio.blocks)) == 8000
    (tmp_path / "silence.raw").write_bytes(bytes(32000))
    with (
        pytest.raises(PipelineError, match=r"silence\.raw: "),
        open_audio(str(tmp_path / "silence.raw")),
    ):
        pass


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "none.wav").touch()
    with (
        pytest.raises(PipelineError, match=r"none\.wav: zero_length_audio"),
        open_audio(str(tmp_path / "none.wav")),
    ):
        pass


def test_standard_input(tmp_path, monkeypatch):
    content = wav(tmp_path / "a.wav").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    with open_audio("-") as audio:
        assert audio.sample_rate_hz == 16000
        assert sum(map(len, audio.blocks)) == 8000
