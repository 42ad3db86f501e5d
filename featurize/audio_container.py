"""The containers of audio files: told by their first bytes, their claims held against their size.

FLAC, RIFF WAV, NIST SPHERE, Ogg and MP3. Headers are bounded before anything is allocated by them.
"""

import io
import re
import struct
from typing import IO

from featurize.reject_reasons import RejectedUtterance

_MAX_SPHERE_HEADER_BYTES = 16_384
_MAX_RIFF_CHUNKS = 64
# Tags of WAV formats that hold a sample of each channel in a block: PCM, float, A-law, mu-law, and
# the extensible one.
_PLAIN_FORMATS = (1, 3, 6, 7, 0xFFFE)
# Of a page of Ogg: its largest size, and the flag of the last one (RFC 3533, section 6).
_MAX_OGG_PAGE_BYTES = 65_307
_OGG_LAST_PAGE = 0x04
# Encoders' own frame at the start of an MP3 states the stream's size within so many bytes.
_MP3_STATED_WITHIN = 256
# Writers to a pipe leave such sizes where they could not seek back.
_UNKNOWN_RIFF_SIZE = 0x7FFF_F000


def check_container(stream: IO[bytes]) -> bool:
    """Find the container by its first bytes, and check that all data it states are there.

    libsndfile quietly shortens a file other than FLAC whose data end early.

    Returns:
        Whether it is FLAC, RIFF WAV, SPHERE, Ogg or MP3; of others nothing is known.

    Raises:
        RejectedUtterance: ``zero_length_audio``, ``truncated_audio`` or ``unreadable_audio``.
    """
    magic = stream.read(12)
    if not magic:
        raise RejectedUtterance("zero_length_audio", "the file is empty")
    if magic[:4] == b"fLaC":
        return True  # the decoder itself notices what is missing
    if magic[:4] == b"RIFF" and magic[8:] == b"WAVE":
        _check_riff(stream)
    elif magic[:7] == b"NIST_1A":
        _check_sphere(stream)
    elif magic[:4] == b"OggS":
        _check_ogg(stream)
    elif magic[:3] == b"ID3" or _is_mp3_frame(magic):
        _check_mp3(stream, magic)
    else:
        _check_total(stream)
        return False
    return True


def _check_total(stream: IO[bytes]) -> None:
    """Of the other chunked containers, the size that the first chunk states of the whole file."""
    stream.seek(0)
    head = stream.read(28).ljust(28, b"\0")
    if head[:4] == b"RF64":  # EBU Tech 3306: the size is the first number of the chunk ds64
        stated = 8 + struct.unpack("<Q", head[20:28])[0]
    elif head[:4] == b"riff":  # Sony Wave64: sizes follow names of 16 bytes and count both
        stated = struct.unpack("<Q", head[16:24])[0]
    elif head[:4] == b"FORM" and head[8:11] == b"AIF":
        stated = 8 + struct.unpack(">I", head[4:8])[0]
    else:
        return
    size = _file_size(stream)
    if size < stated < _UNKNOWN_RIFF_SIZE:
        _raise_truncated(size, stated, 0)


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


def _is_mp3_frame(head: bytes) -> bool:
    """Whether a header of MPEG audio, layer III, stands here: eleven bits set, then the layer."""
    return len(head) >= 2 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2


def _check_mp3(stream: IO[bytes], magic: bytes) -> None:
    """Where encoders state the size of the stream, in a first frame without sound, hold it to that.

    Without that frame the end of an MP3 is wherever it ends.
    """
    start = 0
    if magic[:3] == b"ID3":  # its size is in four bytes of seven bits
        start = 10 + sum(
            (byte & 0x7F) << shift for byte, shift in zip(magic[6:10], (21, 14, 7, 0), strict=False)
        )
    stream.seek(start)
    head = stream.read(_MP3_STATED_WITHIN)
    if head[:4] == b"fLaC":
        return  # some tools put such a tag before FLAC too
    if not _is_mp3_frame(head):
        raise RejectedUtterance("unreadable_audio", "no MP3 frame where the first should be")
    tag = next((at for name in (b"Xing", b"Info") if (at := head.find(name)) > 0), -1)
    if tag < 0 or len(head) < tag + 16:
        return
    (flags,) = struct.unpack(">I", head[tag + 4 : tag + 8])
    if flags & 0b11 == 0b11:
        (claimed,) = struct.unpack(">I", head[tag + 12 : tag + 16])
        if start + claimed > _file_size(stream):
            _raise_truncated(_file_size(stream) - start, claimed, 0)


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
            if len(body) == 14 and struct.unpack("<H", body[:2])[0] in _PLAIN_FORMATS:
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
        "truncated_audio", f"{max(present, 0) // divisor} of {claimed // divisor} {unit} are there"
    )
