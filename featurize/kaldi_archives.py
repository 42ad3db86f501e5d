"""Reading Kaldi's tables: script files, archives of matrices and of integer vectors.

The formats are kaldiio's to know, but it is only handed what it is safe to: it would run a script
file's pipes as commands and unpickle a record that says it is a pickle. So script files are
parsed here, a record's kind is looked at first, and no read is larger than a record may be.
"""

import io
import logging
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from kaldiio import matio
from numpy.typing import NDArray

from featurize.reject_reasons import RejectReason
from featurize.stage import Location, PipelineError
from featurize.text_file import read_unzipped, text_lines

MAX_RECORD_BYTES = 256 * 2**20
MAX_SCRIPT_BYTES = 2**30
MAX_KEY_BYTES = 256
MAX_ARCHIVE_BYTES = 8 * 2**30
_SCRIPT_LINE = re.compile(r"(\S{1,256})\s+(\S+?)(?::(\d{1,18}))?(?:\[(\d{1,9}):(\d{1,9})\])?")
_RANGE = re.compile(r"(?::\d+|\.ark)\[[^\]/]*\]$")
# Kaldi's ParseMatrixRangeSpecifier: two rows for windows at the edge, one for rounding of times.
_MAX_ROWS_PAST_END = 3
# From a data folder (data/train) over a recipe (s5) to a folder of recipes.
_MAX_FOLDERS_ABOVE = 3
_SIZED_INTEGER = np.dtype([("num_bytes", "u1"), ("value", "<i4")])
# A parser of binary records fails in as many ways as there are records.
_PARSER_ERRORS = (ValueError, AssertionError, TypeError, OverflowError, EOFError, struct.error)
_MATRIX_KINDS = (b"FM ", b"DM ", b"CM ", b"CM2", b"CM3")


logger = logging.getLogger(__name__)


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
    """Where a record lies."""

    file: Location
    offset: int  # the byte at which the record begins
    rows: tuple[int, int] | None = None  # first and last row that are meant, None for all


def read_script(file: Location, root: Location) -> dict[str, ScriptEntry]:
    """Read a script file (``.scp``): a key and ``FILE:OFFSET`` on each line.

    ``FILE:OFFSET[FIRST:LAST]`` is rows of a record. An archive that is not where the line says is
    looked for below the root, the script's folder and the folders above it, by the last parts of
    its path, as many of them as fit.

    Args:
        root: where relative paths begin.
    """
    entries: dict[str, ScriptEntry] = {}
    archives = _Archives(file.parent, root)
    for number, line in enumerate(read_lines(file), start=1):
        if "|" in line:
            raise PipelineError(
                f"{file}, line {number} is a command, and commands are not run; write its output "
                "to an archive with copy-feats and name that"
            )
        match = _SCRIPT_LINE.fullmatch(line)
        if match is None:
            raise PipelineError(f"{file}, line {number} is not 'KEY FILE:OFFSET'")
        key, path, offset, first, last = match.groups()
        if first is None and _RANGE.search(path):
            raise PipelineError(
                f"{file}, line {number}: of ranges, only rows [FIRST:LAST] are read; write what is "
                "meant to an archive with copy-feats and name that"
            )
        if key in entries:
            raise PipelineError(f"{file}, line {number}: {key} comes twice")
        rows = None if first is None else (int(first), int(last))
        entries[key] = ScriptEntry(archives.at(path), int(offset or 0), rows)
    return entries


class _Archives:
    """The archives that a script file names, those that were moved with it too."""

    def __init__(self, folder: Location, root: Location) -> None:
        self._root = root
        self._bases = [root, folder]
        while len(self._bases) < 2 + _MAX_FOLDERS_ABOVE and "/" in self._bases[-1].path.strip("/"):
            self._bases.append(self._bases[-1].parent)
        self._found: dict[str, Location] = {}

    def at(self, path: str) -> Location:
        """Where an archive is; where it should be, if it is nowhere."""
        if path not in self._found:
            here = path.startswith("/") or path.startswith("s3://")
            named = Location.of(path) if here else self._root.child(path)
            self._found[path] = named if named.exists() else self._moved(named) or named
        return self._found[path]

    def _moved(self, named: Location) -> Location | None:
        parts = named.path.strip("/").split("/")
        for length in range(len(parts), 0, -1):
            for base in self._bases:
                candidate = base.child(*parts[-length:])
                if candidate.exists() and not candidate.is_dir():
                    logger.warning("%s is not there; %s is read in its place", named, candidate)
                    return candidate
        return None


def archive_mark(file: Location) -> str:
    """What changes with an archive that is too large to hash: its size, and its time or ETag."""
    try:
        info = file.filesystem.info(file.path)
    except FileNotFoundError:
        return "missing"
    return f"{info['size']} {info.get('ETag') or info.get('mtime')}"


def read_lines(file: Location) -> list[str]:
    """The lines of a text file, plain or gzip, without those that are empty."""
    try:
        lines = text_lines(read_unzipped(file, "table", MAX_SCRIPT_BYTES))
    except UnicodeDecodeError as error:
        raise PipelineError(f"{file} is not UTF-8 text") from error
    return [line.strip() for line in lines if line.strip()]


def read_table(file: Location, *, one_word: bool = False) -> dict[str, str]:
    """Key to the rest of each line, for ``utt2spk`` and ``text``.

    Args:
        one_word: whether the rest is one word.
    """
    table: dict[str, str] = {}
    for number, line in enumerate(read_lines(file), start=1):
        key, *rest = line.split(maxsplit=1)
        if key in table:
            raise PipelineError(f"{file}, line {number}: {key} comes twice; keep one")
        table[key] = rest[0] if rest else ""
        if one_word and len(table[key].split()) != 1:
            raise PipelineError(f"{file}, line {number} is not 'KEY VALUE': {line[:60]!r}")
    return table


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
        OSError: when the store fails; the record itself may be sound.
    """
    try:
        with entry.file.open_read() as stream:
            stream.seek(entry.offset)
            head = stream.read(5)
            if head[:2] != b"\0B" or head[2:5] not in _MATRIX_KINDS:
                raise BadRecord(f"no binary matrix at byte {entry.offset} of {entry.file.name}")
            stream.seek(entry.offset)
            matrix = np.asarray(matio.read_matrix_or_vector(_Bounded(stream)), np.float32)
            matrix = _rows_of(matrix, entry)
    except FileNotFoundError as error:
        raise BadRecord(f"{entry.file} is missing") from error
    except _PARSER_ERRORS as error:
        raise BadRecord(f"a damaged matrix at byte {entry.offset} of {entry.file.name}") from error
    if matrix.ndim != 2 or not matrix.size:
        raise BadRecord(f"an empty matrix at byte {entry.offset} of {entry.file.name}")
    return matrix


def _rows_of(matrix: NDArray[np.float32], entry: ScriptEntry) -> NDArray[np.float32]:
    """The rows that are meant; as in Kaldi, the last may be past the end by a few, which lack."""
    if entry.rows is None or matrix.ndim != 2:
        return matrix
    first, last = entry.rows
    if not first <= last < len(matrix) + _MAX_ROWS_PAST_END or first >= len(matrix):
        raise BadRecord(f"rows {first} to {last} of {len(matrix)} in {entry.file.name}")
    return matrix[first : last + 1]


def read_integer_vectors(file: Location) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """All records of an archive of integer vectors, binary or text, plain or gzip, in order."""
    stream = io.BytesIO(read_unzipped(file, "archive", MAX_ARCHIVE_BYTES))
    try:
        while (key := _read_key(stream)) is not None:
            yield key, _read_vector(stream)
    except (BadRecord, *_PARSER_ERRORS) as error:
        raise PipelineError(
            f"{file} is not a whole archive of integer vectors ({error}); write it with ali-to-pdf "
            "or ali-to-phones --per-frame=true"
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
    if head == b"\0B\4":
        (size,) = struct.unpack("<i", stream.read(4))
        if not 0 <= size <= MAX_RECORD_BYTES:
            raise BadRecord(f"a record says it has {size} numbers")
        content = stream.read(size * _SIZED_INTEGER.itemsize)
        values = np.frombuffer(content, _SIZED_INTEGER)
        if len(values) != size or (values["num_bytes"] != 4).any():
            raise BadRecord("a record that is cut off or no vector of integers")
        return values["value"].astype(np.int32)
    stream.seek(-len(head), 1)
    if head[:2] == b"\0B":
        raise BadRecord("a record that is no vector of integers")
    line = stream.readline(MAX_RECORD_BYTES)
    if not line.endswith(b"\n"):
        raise BadRecord("the last record is cut off")
    return np.array([int(field) for field in line.split()], np.int32)
