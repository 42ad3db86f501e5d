"""Reading one utterance's audio: FLAC, RIFF WAV, NIST SPHERE, Ogg (Opus, Vorbis) or MP3.

libsndfile decodes all five. Of a file other than FLAC whose data end early it returns what there
is, without an error, so headers are read here too and compared with the file's size. Sizes in
headers are bounded before anything is allocated by them.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import gcd
from typing import IO, cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from featurize.audio_container import check_container
from featurize.reject_reasons import RejectedUtterance
from featurize.resampling import resample
from featurize.segment import Segment
from featurize.stage import Location

MIN_NATIVE_RATE_HZ = 4_000
MAX_NATIVE_RATE_HZ = 192_000
MAX_CHANNELS = 16

# A polyphase filter has a phase per step of the ratio; real rates need at most a few hundred.
_MAX_RATIO_TERM = 48_000
# libsndfile's answer where the header leaves the length open.
_UNKNOWN_NUM_FRAMES = 2**62
_DECODE_BLOCK = 4_096
_FLOAT_SUBTYPES = frozenset({"FLOAT", "DOUBLE"})


@dataclass(frozen=True)
class Audio:
    """One utterance, ready for feature extraction."""

    samples: NDArray[np.float32]  # (num_samples,) float32, mono, in [-1, 1], at the rate asked for
    sample_rate_hz: int
    native_rate_hz: int  # the file's own rate: the clock of a ``.PHN`` beside it

    @property
    def num_samples(self) -> int:
        """Number of samples, after resampling."""
        return len(self.samples)

    @property
    def was_resampled(self) -> bool:
        """Whether the file had another sample rate."""
        return self.native_rate_hz != self.sample_rate_hz


def read_audio(
    location: Location, sample_rate_hz: int, max_duration_s: float, segment: Segment | None = None
) -> Audio:
    """Read, check and convert one audio file, or a part of it.

    Args:
        location: a FLAC, RIFF WAV, uncompressed SPHERE, Ogg or MP3 file, local or on S3.
        sample_rate_hz: the rate wanted; another rate is converted.
        max_duration_s: longer audio is rejected by its header, before it is decoded.
        segment: which part; all of it where None.

    Returns:
        The audio. Floating-point files are clipped to [-1, 1].

    Raises:
        RejectedUtterance: ``missing_audio``, ``zero_length_audio``, ``unreadable_audio``,
            ``truncated_audio``, ``too_long`` or ``non_finite_audio``, with what was found.
        OSError: when the store fails; the file itself may be sound.
    """
    try:
        if location.is_local:
            with open(location.path, "rb") as stream:
                _require_known_container(stream)
            # By path libsndfile reads the file itself, which is faster than through Python.
            decoded = _decode(location.path, max_duration_s, segment)
        elif segment is not None:
            # The recording may be hours long, of which the store sends what is read.
            with location.open_read() as remote, _watched(remote) as watched:
                _require_known_container(remote)
                remote.seek(0)
                decoded = _decode(watched, max_duration_s, segment)
        else:
            content = _bounded_content(location, max_duration_s)
            _require_known_container(io.BytesIO(content))
            decoded = _decode(io.BytesIO(content), max_duration_s, None)
    except FileNotFoundError as error:
        raise RejectedUtterance("missing_audio", f"no file {location}") from error
    except (PermissionError, IsADirectoryError) as error:
        raise RejectedUtterance("unreadable_audio", f"{location}: {error.strerror}") from error
    return _convert(decoded, sample_rate_hz)


def _require_known_container(stream: IO[bytes]) -> None:
    if not check_container(stream):
        # What the file begins with is not repeated: a table may name any file.
        raise RejectedUtterance("unreadable_audio", "not FLAC, RIFF WAV, SPHERE, Ogg or MP3")


class _Watched:
    """A stream that keeps the error of a read, of which libsndfile only sees that data end."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.error: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            return self._stream.read(size)
        except Exception as error:
            self.error = error
            return b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


@contextmanager
def _watched(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """The stream for a decoder; an error of a read comes in place of what was made of it."""
    watched = _Watched(stream)
    try:
        yield cast(IO[bytes], watched)
    finally:
        if watched.error is not None:
            raise watched.error


@dataclass(frozen=True)
class _Decoded:
    samples: NDArray[np.float32]  # (num_samples, num_channels)
    rate_hz: int
    is_float: bool


def _bounded_content(location: Location, max_duration_s: float) -> bytes:
    """Fetch a remote file whole, but no more than the longest plausible audio takes."""
    limit = int(max_duration_s * MAX_NATIVE_RATE_HZ * MAX_CHANNELS * 4) + 2**20
    filesystem = location.filesystem
    try:
        content = bytes(filesystem.cat_file(location.path, start=0, end=limit + 1))
    except FileNotFoundError:
        raise
    except OSError:
        # A store refuses a range of an empty object.
        if int(filesystem.size(location.path)) > 0:
            raise
        content = b""
    if len(content) > limit:
        raise RejectedUtterance("too_long", f"the file has more than {limit} bytes")
    return content


def _decode(source: str | IO[bytes], max_duration_s: float, segment: Segment | None) -> _Decoded:
    try:
        with soundfile.SoundFile(source) as sound:
            rate_hz, num_channels, num_frames = sound.samplerate, sound.channels, sound.frames
            if not MIN_NATIVE_RATE_HZ <= rate_hz <= MAX_NATIVE_RATE_HZ:
                raise RejectedUtterance("unreadable_audio", f"a sample rate of {rate_hz} Hz")
            if num_channels > MAX_CHANNELS:
                raise RejectedUtterance("unreadable_audio", f"{num_channels} channels")
            if num_frames >= _UNKNOWN_NUM_FRAMES:
                raise RejectedUtterance(
                    "unreadable_audio", "the header does not state its length; encode it again"
                )
            if num_frames <= 0:
                raise RejectedUtterance("zero_length_audio", "the file holds no samples")
            start, stop = (segment or Segment()).bounds(num_frames, rate_hz)
            num_wanted = stop - start
            if num_wanted > max_duration_s * rate_hz:
                raise RejectedUtterance(
                    "too_long",
                    f"{'the header' if segment is None else 'the segment'} claims "
                    f"{num_wanted / rate_hz:.1f} s, over {max_duration_s} s",
                )
            is_float = sound.subtype in _FLOAT_SUBTYPES
            try:
                if start:
                    sound.seek(start)
                samples = sound.read(num_wanted, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                samples = np.zeros((0, num_channels), np.float32)
    except soundfile.LibsndfileError as error:
        message = error.error_string.rstrip(".")
        raise RejectedUtterance("unreadable_audio", f"the decoder says: {message}") from error
    if len(samples) < num_wanted:
        decodable = len(samples) or (_num_decodable(source) if segment is None else 0)
        raise RejectedUtterance(
            "truncated_audio", f"decoding stops after {decodable} of {num_wanted} samples"
        )
    return _Decoded(samples, rate_hz, is_float)


def _num_decodable(source: str | IO[bytes]) -> int:
    """Count the samples before the decoder fails, for the reject's detail."""
    if not isinstance(source, str):
        source.seek(0)
    count = 0
    try:
        with soundfile.SoundFile(source) as sound:
            while num_read := len(sound.read(_DECODE_BLOCK, dtype="int16")):
                count += num_read
    except soundfile.LibsndfileError:
        pass  # the end of what can be decoded
    return count


def _convert(decoded: _Decoded, sample_rate_hz: int) -> Audio:
    """Check values, average the channels, convert the rate."""
    is_mono = decoded.samples.shape[1] == 1
    samples = decoded.samples[:, 0] if is_mono else decoded.samples.mean(axis=1)
    # Integers are finite and in range as they come.
    if decoded.is_float:
        if not np.isfinite(samples).all():
            raise RejectedUtterance("non_finite_audio", "not-a-number or infinity in the samples")
        samples = np.clip(samples, -1.0, 1.0)
    rate_hz = decoded.rate_hz
    if rate_hz != sample_rate_hz:
        if max(rate_hz, sample_rate_hz) // gcd(rate_hz, sample_rate_hz) > _MAX_RATIO_TERM:
            raise RejectedUtterance(
                "unreadable_audio", f"{rate_hz} Hz has no usable ratio to {sample_rate_hz} Hz"
            )
        # The filter may overshoot at full scale.
        samples = np.clip(resample(samples, rate_hz, sample_rate_hz), -1.0, 1.0)
    return Audio(
        samples=np.ascontiguousarray(samples, dtype=np.float32),
        sample_rate_hz=sample_rate_hz,
        native_rate_hz=rate_hz,
    )
