"""Audio as the recogniser reads it: whole, or refused with a name and a reason."""

import io
import re
import sys

import numpy as np
import pytest
import soundfile

from evaluation.engine.audio_file import open_audio
from featurize.stage import Location, PipelineError


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


@pytest.mark.parametrize(
    ("name", "form"),
    [("cut.wav", "RF64"), ("cut.w64", "W64"), ("cut.aiff", "AIFF")],
)
def test_a_cut_file_of_another_container_is_named(tmp_path, name, form):
    whole = tmp_path / f"whole.{name}"
    samples = 0.1 * np.random.default_rng(0).standard_normal(48000)
    soundfile.write(whole, samples, 16000, subtype="PCM_16", format=form)
    with open_audio(str(whole)) as audio:
        assert sum(map(len, audio.blocks)) == 48000
    cut = tmp_path / name
    cut.write_bytes(whole.read_bytes()[:-1000])
    with pytest.raises(PipelineError, match=f"{name}: truncated_audio: "), open_audio(str(cut)):
        pass


def test_a_cut_flac_says_how_far_it_goes(tmp_path):
    flac = tmp_path / "a.flac"
    soundfile.write(flac, 0.1 * np.random.default_rng(0).standard_normal(48000), 16000)
    flac.write_bytes(flac.read_bytes()[: flac.stat().st_size // 2])
    with (
        pytest.raises(PipelineError, match=r"stops after \d+ of 48000 samples"),
        open_audio(str(flac)) as audio,
    ):
        list(audio.blocks)


def test_a_cut_mp3_that_does_not_state_its_size_is_warned_of(tmp_path, caplog):
    mp3 = tmp_path / "a.mp3"
    soundfile.write(mp3, 0.1 * np.random.default_rng(0).standard_normal(48000), 16000)
    with open_audio(str(mp3)) as audio:
        assert sum(map(len, audio.blocks)) == 48000
    assert not caplog.text
    content = bytearray(mp3.read_bytes()[: mp3.stat().st_size // 2])
    tag = next(at for name in (b"Xing", b"Info") if (at := content.find(name)) > 0)
    content[tag + 4 : tag + 8] = (1).to_bytes(4, "big")  # the number of frames alone, not of bytes
    mp3.write_bytes(content)
    with open_audio(str(mp3)) as audio:
        assert 0 < sum(map(len, audio.blocks)) < 48000
    assert re.search(r"a.mp3 ends after \d+ of the \d+ samples", caplog.text)


def test_a_tag_before_a_flac_does_not_matter(tmp_path):
    flac = tmp_path / "a.flac"
    soundfile.write(flac, 0.1 * np.random.default_rng(0).standard_normal(8000), 16000)
    flac.write_bytes(b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + flac.read_bytes())
    with open_audio(str(flac)) as audio:
        assert sum(map(len, audio.blocks)) == 8000


def test_a_header_that_was_never_finished_is_named(tmp_path):
    """As a recorder leaves it that was killed: no samples, says the header."""
    file = wav(tmp_path / "killed.wav")
    content = bytearray(file.read_bytes())
    content[40:44] = bytes(4)
    file.write_bytes(content)
    with pytest.raises(PipelineError, match="header states that it holds no samples"):
        open_audio(str(file)).__enter__()


def test_a_header_without_a_length_is_named(tmp_path):
    """As an encoder leaves it that writes to a pipe."""
    flac = tmp_path / "piped.flac"
    soundfile.write(flac, 0.1 * np.random.default_rng(0).standard_normal(48000), 16000)
    content = bytearray(flac.read_bytes())
    content[21] &= 0xF0  # the upper bits of the number of samples share a byte
    content[22:26] = bytes(4)
    flac.write_bytes(content)
    with pytest.raises(PipelineError, match=r"header states no length; encode it again"):
        open_audio(str(flac)).__enter__()


@pytest.mark.parametrize("size", [0x7FFFFFFF, 0xFFFFFFFF])
def test_a_length_that_a_pipe_left_is_that_of_the_file(tmp_path, size):
    file = wav(tmp_path / "piped.wav")
    content = bytearray(file.read_bytes())
    content[40:44] = size.to_bytes(4, "little")
    file.write_bytes(content)
    with open_audio(str(file)) as audio:
        assert sum(map(len, audio.blocks)) == 8000


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


def test_a_file_on_s3_is_heard_as_here_and_a_cut_one_named(tmp_path, s3_server):
    here = wav(tmp_path / "a.wav")
    there = Location.of(s3_server.uri).child("heard")
    there.child("a.wav").write_bytes(here.read_bytes())
    there.child("cut.wav").write_bytes(here.read_bytes()[:9000])
    with open_audio(str(here)) as local, open_audio(there.child("a.wav").uri) as remote:
        assert remote.sample_rate_hz == local.sample_rate_hz
        np.testing.assert_array_equal(
            np.concatenate(list(remote.blocks)), np.concatenate(list(local.blocks))
        )
    with (
        pytest.raises(PipelineError, match=r"cut\.wav: truncated_audio"),
        open_audio(there.child("cut.wav").uri),
    ):
        pass


def test_what_fails_in_the_callers_block_is_not_said_of_the_file(tmp_path):
    with pytest.raises(BrokenPipeError), open_audio(str(wav(tmp_path / "a.wav"))):
        raise BrokenPipeError(32, "Broken pipe")
