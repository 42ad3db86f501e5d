"""Reading Kaldi's tables: script files, archives of matrices and of integer vectors.

The formats are kaldiio's to know, but it is only handed what it is safe to: it would run a script
file's pipes as commands and unpickle a record that says it is a pickle. So script files are
parsed here, a record's kind is looked at first, and no read is larger than a record may be.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from kaldiio import matio
from numpy.typing import NDArray

from featurize.rejected import RejectReason
from featurize.stage import Location, PipelineError

MAX_RECORD_BYTES = 256 * 2**20
MAX_SCRIPT_BYTES = 2**30
MAX_KEY_BYTES = 256
_SCRIPT_LINE = re.compile(r"(\S{1,256})\s+(\S+?)(?::(\d{1,18}))?")
# A parser of binary records fails in as many ways as there are records.
_PARSER_ERRORS = (
    ValueError, AssertionError, TypeError, OverflowError, MemoryError, OSError, struct.error,
)  # fmt: skip
_MATRIX_KINDS = (b"FM ", b"DM ", b"CM ", b"CM2", b"CM3")


class BadRecord(Exception):
    """A record that is not what it should be; the message says how.

    Attributes:
        reason: the kind of reject that it makes an utterance.
    """

    def __init__(self, detail: str, reason: RejectReason = "unreadable_features") -> None:
        super().__init__(detail)
        self.reason: RejectReason = reason


@dataclass(frozen=True)
class ScriptEntry:
    """Where a record lies: a file, and the byte at which it begins."""

    file: Location
    offset: int


def read_script(file: Location, root: Location) -> dict[str, ScriptEntry]:
    """Read a script file (``.scp``): a key and ``FILE:OFFSET`` on each line.

    Args:
        file: the script file.
        root: where relative paths begin.

    Raises:
        PipelineError: when it is missing, too large, not such a table, holds a command, or a key
            twice.
    """
    entries: dict[str, ScriptEntry] = {}
    for number, line in enumerate(read_lines(file), start=1):
        if "|" in line:
            raise PipelineError(
                f"{file}, line {number} is a command, and commands are not run; write its output "
                "to an archive with copy-feats and name that"
            )
        match = _SCRIPT_LINE.fullmatch(line)
        if match is None:
            raise PipelineError(f"{file}, line {number} is not 'KEY FILE:OFFSET'")
        key, path, offset = match[1], match[2], int(match[3] or 0)
        if key in entries:
            raise PipelineError(f"{file}, line {number}: {key} comes twice")
        here = path.startswith("/") or path.startswith("s3://")
        entries[key] = ScriptEntry(Location.of(path) if here else root.child(path), offset)
    return entries


def archive_mark(file: Location) -> str:
    """What changes with an archive that is too large to hash: its size, and its time or ETag."""
    try:
        info = file.filesystem.info(file.path)
    except FileNotFoundError:
        return "missing"
    return f"{info['size']} {info.get('ETag') or info.get('mtime')}"


def read_lines(file: Location) -> list[str]:
    """The lines of a text file, without those that are empty.

    Raises:
        PipelineError: when it is missing, too large or not UTF-8.
    """
    if not file.exists() or file.is_dir():
        raise PipelineError(f"{file} is not a file; check the path")
    if file.filesystem.size(file.path) > MAX_SCRIPT_BYTES:
        raise PipelineError(f"{file} is larger than {MAX_SCRIPT_BYTES} bytes")
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PipelineError(f"{file} is not UTF-8 text") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_table(file: Location) -> dict[str, str]:
    """Key to the rest of each line, for ``utt2spk`` and ``text``."""
    fields = (line.split(maxsplit=1) for line in read_lines(file))
    return {parts[0]: parts[1] if len(parts) > 1 else "" for parts in fields}


class _Bounded:
    """A stream that refuses to read more than a record may hold."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_RECORD_BYTES:
            raise BadRecord(f"a record says it has {size} bytes")
        return self._stream.read(size)


def read_matrix(entry: ScriptEntry) -> NDArray[np.float32]:
    """A binary matrix, plain or compressed, (T, F).

    Raises:
        BadRecord: when there is none at that place.
    """
    try:
        with entry.file.open_read() as stream:
            stream.seek(entry.offset)
            head = stream.read(5)
            if head[:2] != b"\0B" or head[2:5] not in _MATRIX_KINDS:
                raise BadRecord(f"no binary matrix at byte {entry.offset} of {entry.file.name}")
            stream.seek(entry.offset)
            matrix = np.asarray(matio.read_matrix_or_vector(_Bounded(stream)), np.float32)
    except FileNotFoundError as error:
        raise BadRecord(f"{entry.file} is missing") from error
    except _PARSER_ERRORS as error:
        raise BadRecord(f"a damaged matrix at byte {entry.offset} of {entry.file.name}") from error
    if matrix.ndim != 2 or not matrix.size:
        raise BadRecord(f"an empty matrix at byte {entry.offset} of {entry.file.name}")
    return matrix


def read_integer_vectors(file: Location) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """All records of an archive of integer vectors, binary or text, in order.

    Raises:
        PipelineError: when it is missing or damaged.
    """
    if not file.exists() or file.is_dir():
        raise PipelineError(f"{file} is not a file; check the path")
    try:
        with file.open_read() as stream:
            while (key := _read_key(stream)) is not None:
                yield key, _read_vector(stream)
    except (BadRecord, *_PARSER_ERRORS) as error:
        raise PipelineError(
            f"{file} is not a whole archive of integer vectors ({error}); write it with ali-to-pdf "
            "or ali-to-phones --per-frame=true, unzipped"
        ) from error


def _read_key(stream: IO[bytes]) -> str | None:
    key = bytearray()
    while (byte := stream.read(1)) not in (b"", b" ", b"\t"):
        key += byte
        if len(key) > MAX_KEY_BYTES:
            raise BadRecord("a key without end")
    if not byte and key.strip():
        raise BadRecord("the last record has no value")
    return key.decode("utf-8").strip() if key.strip() else None


def _read_vector(stream: IO[bytes]) -> NDArray[np.int32]:
    head = stream.read(3)
    stream.seek(-len(head), 1)
    if head == b"\0B\4":
        return np.asarray(matio.read_int32vector(_Bounded(stream)), np.int32)
    if head[:2] == b"\0B":
        raise BadRecord("a record that is no vector of integers")
    line = stream.readline(MAX_RECORD_BYTES)
    if not line.endswith(b"\n"):
        raise BadRecord("the last record is cut off")
    return np.array([int(field) for field in line.split()], np.int32)
