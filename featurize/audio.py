"""Reading one utterance's audio: FLAC, RIFF WAV, NIST SPHERE or Ogg (Opus, Vorbis).

libsndfile decodes all four. Of a file other than FLAC whose data end early it returns what there
is, without an error, so headers are read here too and compared with the file's size. Sizes in
headers are bounded before anything is allocated by them.
"""

import io
import re
import struct
from dataclasses import dataclass
from math import gcd
from typing import IO

import numpy as np
import soundfile
from numpy.typing import NDArray

from featurize.rejects import RejectedUtterance
from featurize.resampling import resample
from featurize.stage import Location

MIN_NATIVE_RATE_HZ = 4_000
MAX_NATIVE_RATE_HZ = 192_000
MAX_CHANNELS = 16

# A polyphase filter has a phase per step of the ratio; real rates need at most a few hundred.
_MAX_RATIO_TERM = 48_000
_MAX_SPHERE_HEADER_BYTES = 16_384
_MAX_RIFF_CHUNKS = 64
# Of a page of Ogg: its largest size, and the flag of the last one (RFC 3533, section 6).
_MAX_OGG_PAGE_BYTES = 65_307
_OGG_LAST_PAGE = 0x04
# Writers to a pipe leave such sizes where they could not seek back.
_UNKNOWN_RIFF_SIZE = 0x7FFF_F000
# libsndfile's answer where the header leaves the length open.
_UNKNOWN_NUM_FRAMES = 2**62
_DECODE_BLOCK = 4_096
_FLOAT_SUBTYPES = frozenset({"FLOAT", "DOUBLE"})


@dataclass(frozen=True)
class Audio:
    """One utterance, ready for feature extraction.

    Attributes:
        samples: (num_samples,) float32, mono, in [-1, 1], at the rate asked for.
        native_rate_hz: the file's own rate: the clock of a ``.PHN`` beside it.
    """

    samples: NDArray[np.float32]
    sample_rate_hz: int
    native_rate_hz: int

    @property
    def num_samples(self) -> int:
        """Number of samples, after resampling."""
        return len(self.samples)

    @property
    def was_resampled(self) -> bool:
        """Whether the file had another sample rate."""
        return self.native_rate_hz != self.sample_rate_hz


def read_audio(location: Location, sample_rate_hz: int, max_duration_s: float) -> Audio:
    """Read, check and convert one audio file.

    Args:
        location: a FLAC, RIFF WAV, uncompressed SPHERE or Ogg file, local or on S3.
        sample_rate_hz: the rate wanted; another rate is converted.
        max_duration_s: longer audio is rejected by its header, before it is decoded.

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
                _check_container(stream)
            # By path libsndfile reads the file itself, which is faster than through Python.
            decoded = _decode(location.path, max_duration_s)
        else:
            content = _bounded_content(location, max_duration_s)
            _check_container(io.BytesIO(content))
            decoded = _decode(io.BytesIO(content), max_duration_s)
    except FileNotFoundError as error:
        raise RejectedUtterance("missing_audio", f"no file {location}") from error
    except (PermissionError, IsADirectoryError) as error:
        raise RejectedUtterance("unreadable_audio", f"{location}: {error.strerror}") from error
    return _convert(decoded, sample_rate_hz)


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


def _check_container(stream: IO[bytes]) -> None:
    """Find the container by its first bytes, and check that all data it states are there."""
    magic = stream.read(12)
    if not magic:
        raise RejectedUtterance("zero_length_audio", "the file is empty")
    if magic[:4] == b"fLaC":
        return  # the decoder itself notices what is missing
    if magic[:4] == b"RIFF" and magic[8:] == b"WAVE":
        _check_riff(stream)
    elif magic[:7] == b"NIST_1A":
        _check_sphere(stream)
    elif magic[:4] == b"OggS":
        _check_ogg(stream)
    else:
        raise RejectedUtterance("unreadable_audio", f"not FLAC, RIFF, SPHERE or Ogg: {magic!r}")


def _file_size(stream: IO[bytes]) -> int:
    return stream.seek(0, io.SEEK_END)


def _check_ogg(stream: IO[bytes]) -> None:
    """The last page of an Ogg stream says that it is the last; libsndfile does not ask for it."""
    size = _file_size(stream)
    stream.seek(max(0, size - _MAX_OGG_PAGE_BYTES))
    tail = stream.read()
    page = tail.rfind(b"OggS")
    if page < 0 or len(tail) < page + 27 or not tail[page + 5] & _OGG_LAST_PAGE:
        raise RejectedUtterance("truncated_audio", "the stream's last page is not there")
    num_segments = tail[page + 26]
    lengths = tail[page + 27 : page + 27 + num_segments]
    if len(tail) < page + 27 + num_segments + sum(lengths):
        raise RejectedUtterance("truncated_audio", "the stream's last page is cut off")


def _check_riff(stream: IO[bytes]) -> None:
    size = _file_size(stream)
    position = 12
    bytes_per_frame = 0
    for _ in range(_MAX_RIFF_CHUNKS):
        stream.seek(position)
        header = stream.read(8)
        if len(header) < 8:
            raise RejectedUtterance("truncated_audio", "the file ends before its samples")
        name, length = struct.unpack("<4sI", header)
        if name == b"fmt ":
            body = stream.read(14)
            if len(body) == 14:
                bytes_per_frame = struct.unpack("<H", body[12:14])[0]
        elif name == b"data":
            if length < _UNKNOWN_RIFF_SIZE and position + 8 + length > size:
                _raise_truncated(size - position - 8, length, bytes_per_frame)
            return
        position += 8 + length + length % 2
    raise RejectedUtterance("unreadable_audio", f"no samples in {_MAX_RIFF_CHUNKS} RIFF chunks")


def _check_sphere(stream: IO[bytes]) -> None:
    """Read SPHERE's text header: its size, then ``name -type value`` lines to ``end_head``."""
    size = _file_size(stream)
    stream.seek(0)
    start = re.match(rb"NIST_1A\n\s*(\d{1,6})\n", stream.read(32))
    header_size = int(start[1]) if start is not None else 0
    if not 0 < header_size <= _MAX_SPHERE_HEADER_BYTES:
        raise RejectedUtterance("unreadable_audio", "a SPHERE header without a plausible size")
    stream.seek(0)
    lines = stream.read(header_size).split(b"end_head")[0].decode("ascii", "replace").splitlines()
    fields = {}
    for line in lines[2:]:
        parts = line.split(maxsplit=2)
        if len(parts) == 3:
            fields[parts[0]] = parts[2].strip()
    coding = fields.get("sample_coding", "pcm")
    if coding != "pcm":
        raise RejectedUtterance(
            "unreadable_audio",
            f"SPHERE coding {coding!r} is not plain PCM; decompress with sph2pipe or w_decode",
        )
    counts = [fields.get(name, "") for name in ("sample_count", "channel_count", "sample_n_bytes")]
    if not all(re.fullmatch(r"[0-9]{1,12}", count) for count in counts):
        raise RejectedUtterance("unreadable_audio", "the SPHERE header does not state its samples")
    num_samples, num_channels, num_bytes = map(int, counts)
    claimed = num_samples * num_channels * num_bytes
    if header_size + claimed > size:
        _raise_truncated(size - header_size, claimed, num_channels * num_bytes)


def _raise_truncated(present: int, claimed: int, bytes_per_frame: int) -> None:
    unit = "samples" if bytes_per_frame else "bytes"
    divisor = bytes_per_frame or 1
    raise RejectedUtterance(
        "truncated_audio",
        f"{max(present, 0) // divisor} of {claimed // divisor} {unit} are there",
    )


def _decode(source: str | io.BytesIO, max_duration_s: float) -> _Decoded:
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
            if num_frames > max_duration_s * rate_hz:
                raise RejectedUtterance(
                    "too_long",
                    f"the header claims {num_frames / rate_hz:.1f} s, over {max_duration_s} s",
                )
            is_float = sound.subtype in _FLOAT_SUBTYPES
            try:
                samples = sound.read(num_frames, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                samples = np.zeros((0, num_channels), np.float32)
    except soundfile.LibsndfileError as error:
        message = error.error_string.rstrip(".")
        raise RejectedUtterance("unreadable_audio", f"the decoder says: {message}") from error
    if len(samples) < num_frames:
        raise RejectedUtterance(
            "truncated_audio",
            f"decoding stops after {len(samples) or _num_decodable(source)} of {num_frames} "
            "samples",
        )
    return _Decoded(samples, rate_hz, is_float)


def _num_decodable(source: str | io.BytesIO) -> int:
    """Count the samples before the decoder fails, for the reject's detail."""
    if isinstance(source, io.BytesIO):
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
