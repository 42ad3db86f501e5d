"""Audio files of every container, whole and damaged; resampling against a sine's closed form."""

import io
import struct
from contextlib import nullcontext

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from featurize.audio import read_audio
from featurize.reject_reasons import RejectedUtterance
from featurize.resampling import resample
from featurize.segment import Segment
from featurize.stage import Location

RATE = 16_000
TONE = (9_000 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.int16)


def encoded(container, samples=TONE, rate=RATE, subtype="PCM_16"):
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=container, subtype=subtype)
    return stream.getvalue()


def sphere(samples=TONE, coding="pcm", sample_count=None, byte_order="01"):
    """A SPHERE file as the LDC writes them, with more fields than libsndfile's own."""
    header = (
        "NIST_1A\n   1024\ndatabase_id -s5 TIMIT\nutterance_id -s8 abc0_sx1\n"
        f"channel_count -i 1\nsample_count -i {sample_count or len(samples)}\n"
        f"sample_rate -i {RATE}\nsample_n_bytes -i 2\nsample_byte_format -s2 {byte_order}\n"
        f"sample_sig_bits -i 16\nsample_coding -s{len(coding)} {coding}\nend_head\n"
    ).encode()
    kind = "<i2" if byte_order == "01" else ">i2"
    return header.ljust(1024, b"\0") + samples.astype(kind).tobytes()


def read(tmp_path, content, max_duration_s=30.0):
    path = tmp_path / "audio.bin"
    path.write_bytes(content)
    return read_audio(Location.of(path), RATE, max_duration_s)


def rejection(tmp_path, content, **options):
    with pytest.raises(RejectedUtterance) as caught:
        read(tmp_path, content, **options)
    return caught.value


@pytest.mark.parametrize(
    "content",
    [
        encoded("FLAC"),
        encoded("WAV"),
        encoded("WAV", TONE / np.float32(32768), subtype="FLOAT"),
        sphere(),
        sphere(byte_order="10"),
    ],
    ids=["flac", "wav", "float-wav", "sphere-little", "sphere-big"],
)
def test_every_container_gives_the_same_samples(tmp_path, content):
    audio = read(tmp_path, content)
    np.testing.assert_array_equal(audio.samples, TONE.astype(np.float32) / 32768)
    assert audio.samples.dtype == np.float32
    assert audio.num_samples == RATE
    assert not audio.was_resampled


def test_stereo_is_averaged(tmp_path):
    audio = read(tmp_path, encoded("FLAC", np.stack([TONE, -TONE // 2], axis=1)))
    expected = np.stack([TONE, -TONE // 2], axis=1).mean(axis=1) / 32768
    np.testing.assert_allclose(audio.samples, expected, atol=1e-7)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_another_rate_is_converted_to_the_same_tone(tmp_path, rate):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    audio = read(tmp_path, encoded("FLAC", tone, rate))
    assert audio.was_resampled
    assert audio.native_rate_hz == rate
    assert audio.num_samples == RATE
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    middle = slice(RATE // 4, -RATE // 4)
    np.testing.assert_allclose(audio.samples[middle], expected[middle], atol=2e-4)


def test_resampling_removes_what_the_new_rate_cannot_hold():
    alias = np.sin(2 * np.pi * 10_000 * np.arange(44_100) / 44_100).astype(np.float32)
    assert np.abs(resample(alias, 44_100, RATE)[2_000:-2_000]).max() < 1e-4


def test_float_samples_are_clipped(tmp_path):
    audio = read(tmp_path, encoded("WAV", np.array([0.5, 3.0, -2.0] * 800), subtype="FLOAT"))
    np.testing.assert_array_equal(audio.samples[:3], np.float32([0.5, 1.0, -1.0]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_samples(tmp_path, bad):
    samples = np.zeros(1_000, np.float32)
    samples[500] = bad
    assert (
        rejection(tmp_path, encoded("WAV", samples, subtype="FLOAT")).reason == "non_finite_audio"
    )


@pytest.mark.parametrize("container", ["FLAC", "WAV", "NIST"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_truncated_files_are_noticed(tmp_path, container, share):
    content = sphere() if container == "NIST" else encoded(container)
    verdict = rejection(tmp_path, content[: int(len(content) * share)])
    assert verdict.reason == "truncated_audio"
    assert "16000 samples" in verdict.detail


def test_damage_inside_a_flac_is_noticed(tmp_path):
    content = bytearray(encoded("FLAC"))
    middle = len(content) // 2
    content[middle : middle + 60] = b"\xaa" * 60
    assert rejection(tmp_path, bytes(content)).reason == "truncated_audio"


@pytest.mark.parametrize(
    ("content", "reason", "detail"),
    [
        (b"", "zero_length_audio", "empty"),
        (encoded("WAV", TONE[:0]), "zero_length_audio", "no samples"),
        (b"hello, this is no audio at all", "unreadable_audio", "not FLAC"),
        (b"fLaC" + b"\xff" * 100, "unreadable_audio", "decoder says"),
        (encoded("WAV")[:30], "truncated_audio", "ends before"),
        (b"NIST_1A\n   9999999\n", "unreadable_audio", "plausible size"),
        (b"NIST_1A\n   1024\nend_head\n", "unreadable_audio", "does not state"),
        (encoded("OGG", subtype="VORBIS")[:-40], "truncated_audio", "cut off"),
        (encoded("AIFF"), "unreadable_audio", "not FLAC, RIFF WAV, SPHERE, Ogg or MP3"),
        (encoded("WAV", rate=200), "unreadable_audio", "200 Hz"),
        (encoded("WAV", rate=191_999), "unreadable_audio", "no usable ratio"),
        (encoded("WAV", np.zeros((10, 40), np.int16)), "unreadable_audio", "40 channels"),
        (sphere(coding="pcm,embedded-shorten-v2.00"), "unreadable_audio", "sph2pipe"),
        (sphere(sample_count=10**11), "truncated_audio", "of 100000000000 samples"),
    ],
)
def test_unusable_files_say_why(tmp_path, content, reason, detail):
    verdict = rejection(tmp_path, content)
    assert verdict.reason == reason
    assert detail in verdict.detail


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_stream_is_read_and_missed_pages_are_noticed(tmp_path, subtype):
    rng = np.random.default_rng(0)
    noise = (3000 * rng.standard_normal(160_000)).astype(np.int16)
    content = encoded("OGG", noise, subtype=subtype)
    path = tmp_path / "whole"
    path.write_bytes(content)
    audio = read_audio(Location.of(str(path)), 16_000, 20.0)
    assert len(audio.samples) == 160_000
    # libsndfile would take a stream that ends with any page for a shorter recording
    last_page = content.rfind(b"OggS")
    assert last_page > 0
    verdict = rejection(tmp_path, content[:last_page])
    assert (verdict.reason, "last page" in verdict.detail) == ("truncated_audio", True)


def test_a_header_that_claims_hours_is_not_believed(tmp_path):
    content = bytearray(encoded("FLAC"))
    content[21] |= 0x0F  # the top of FLAC's 36-bit sample count
    verdict = rejection(tmp_path, bytes(content))
    assert verdict.reason == "too_long"


def test_a_flac_without_a_length_is_refused(tmp_path):
    content = bytearray(encoded("FLAC"))
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    assert "length" in rejection(tmp_path, bytes(content)).detail


def test_too_long_and_missing(tmp_path):
    assert rejection(tmp_path, encoded("FLAC"), max_duration_s=0.9).reason == "too_long"
    with pytest.raises(RejectedUtterance) as caught:
        read_audio(Location.of(tmp_path / "none.flac"), RATE, 30)
    assert caught.value.reason == "missing_audio"


def test_chunks_before_the_samples_are_passed_over(tmp_path):
    plain = encoded("WAV")
    body = plain[12:36] + struct.pack("<4sI", b"LIST", 5) + b"abcde\0" + plain[36:]
    audio = read(tmp_path, b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body)
    assert audio.num_samples == RATE


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_bytes_never_escape_as_another_error(tmp_path_factory, data):
    content = bytearray(data.draw(st.sampled_from([encoded("FLAC"), encoded("WAV"), sphere()])))
    for _ in range(data.draw(st.integers(1, 8))):
        position = data.draw(st.integers(0, min(len(content) - 1, 1_200)))
        content[position] = data.draw(st.integers(0, 255))
    try:
        audio = read(tmp_path_factory.getbasetemp(), bytes(content))
    except RejectedUtterance:
        return
    assert np.isfinite(audio.samples).all()
    assert np.abs(audio.samples).max(initial=0) <= 1


def test_blocks_of_a_compressed_wav_are_not_called_samples(tmp_path):
    wav = tmp_path / "a.wav"
    soundfile.write(wav, np.zeros(48_000), 16_000, format="WAV", subtype="IMA_ADPCM")
    wav.write_bytes(wav.read_bytes()[:-9000])
    with pytest.raises(RejectedUtterance, match=r"\d+ of 24576 bytes are there"):
        read_audio(Location.of(wav), 16_000, 30.0)


@pytest.mark.parametrize("num_good", [0, 1, 3])
def test_a_store_that_fails_while_a_segment_is_decoded_is_no_short_recording(
    tmp_path, monkeypatch, num_good
):
    """libsndfile sees an end of data where a read failed."""
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(160_000, np.float32), 16_000)
    content = path.read_bytes()

    class Broken(io.BytesIO):
        num_reads = 0

        def read(self, size=-1):
            at = self.tell()
            if at > 100_000:
                self.num_reads += 1
                if self.num_reads > num_good:
                    raise TimeoutError("read timed out")
            return super().read(size)

    monkeypatch.setattr(Location, "is_local", property(lambda self: False))
    monkeypatch.setattr(Location, "open_read", lambda self: nullcontext(Broken(content)))
    segment = Segment(4.0, 4.0)
    with pytest.raises(TimeoutError):
        read_audio(Location.of(path), 16_000, 30.0, segment)
    monkeypatch.setattr(Location, "open_read", lambda self: nullcontext(io.BytesIO(content)))
    assert read_audio(Location.of(path), 16_000, 30.0, segment).num_samples == 64_000
