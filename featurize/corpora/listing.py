"""What corpus readers share: listing files once, reading many small ones, and the digest."""

import codecs
import errno
import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from featurize.corpora.entry import CorpusEntry, CorpusListing
from featurize.reject_reasons import RejectReason
from featurize.rejects import Reject
from featurize.stage import Location, PipelineError, is_folder_marker

# Both layouts are three folders deep below a subset; a loop of links ends here.
_MAX_DEPTH = 6
_MAX_TEXT_BYTES = 32 * 2**20
_TEXTS_PER_REQUEST = 256
# What macOS puts beside files that it copies or shows: "._NAME" holds no audio and no text.
_MACOS_COMPANION = "._"
_MACOS_FOLDER_FILE = ".DS_Store"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CorpusFile:
    """A file below the corpus root."""

    path: str  # relative to the root
    size: int  # bytes
    # what changes when the content does: whole seconds of modification time locally, the ETag on S3
    mark: str

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    @property
    def folder(self) -> str:
        """The path of the folder that holds the file."""
        return str(PurePosixPath(self.path).parent)


def list_files(root: Location, folder: str) -> list[CorpusFile]:
    """List all files below one folder of a corpus, sorted by path.

    Companions that macOS leaves (``._NAME``, ``.DS_Store``) are passed over, and their number
    logged. A name that is not UTF-8 is given with its odd bytes written out, ``caf\\xe9.flac``:
    it can be told and rejected, not opened. Links within the corpus are followed.

    Raises:
        PipelineError: when a link leads out of the corpus, or a folder cannot be entered or lies
            too deep: what it holds would be missing without a word.
        OSError: when the store fails; s3fs lets some of botocore's own errors through as well.
    """
    location = root.child(folder)
    files = list(_local_files(root, location) if root.is_local else _remote_files(root, location))
    wanted = [file for file in files if not is_macos_companion(file.name)]
    if len(wanted) < len(files):
        logger.warning(
            "%s: %d companion files of macOS (._NAME, .DS_Store) are passed over",
            location,
            len(files) - len(wanted),
        )
    return sorted(wanted, key=lambda file: file.path)


def warn_of_unused(location: Location, files: Sequence[CorpusFile]) -> None:
    """Say how many files are neither audio nor transcripts nor alignments, and name some."""
    if files:
        logger.warning(
            "%s: %d files are neither audio, transcript nor alignment by their names and are "
            "passed over, such as %s",
            location,
            len(files),
            names_for_message((file.name for file in files), limit=3),
        )


def _remote_files(root: Location, location: Location) -> Iterator[CorpusFile]:
    prefix = root.path.rstrip("/") + "/"
    found: Mapping[str, Mapping[str, Any]] = location.filesystem.find(location.path, detail=True)
    for path, info in found.items():
        if str(path).startswith(prefix) and not is_folder_marker(str(path)):
            yield CorpusFile(
                printable_path(str(path)[len(prefix) :]), int(info["size"]), content_mark(info)
            )


def _local_files(root: Location, location: Location) -> Iterator[CorpusFile]:
    def refuse(error: OSError) -> None:
        raise PipelineError(
            f"{error.filename} cannot be entered ({error.strerror}), and its utterances would be "
            "missing; mend its rights, or take it out of the corpus"
        ) from error

    top = os.path.realpath(root.path)
    _refuse_link_out(top, location.path)
    for directory, folders, names in os.walk(location.path, onerror=refuse, followlinks=True):
        if folders and directory[len(location.path) :].count("/") >= _MAX_DEPTH:
            raise PipelineError(
                f"{directory} lies {_MAX_DEPTH} folders below {location} and has folders itself, "
                "which are not read (a link to a folder above, perhaps); take it out of the corpus"
            )
        for name in (*folders, *names):
            _refuse_link_out(top, os.path.join(directory, name))
        for name in names:
            path = os.path.join(directory, name)
            try:
                status = os.stat(path)
            except FileNotFoundError:  # a link to nothing: reading it will say so
                status = os.lstat(path)
            relative = path[len(root.path.rstrip("/")) + 1 :]
            yield CorpusFile(printable_path(relative), status.st_size, str(int(status.st_mtime)))


def _refuse_link_out(top: str, path: str) -> None:
    """A transcript that is a link to anything would have its first words published as a reject."""
    if os.path.islink(path):
        target = os.path.realpath(path)
        if os.path.commonpath([top, target]) != top:
            raise PipelineError(
                f"{path} is a link that leads out of the corpus; put the file itself there, "
                "or name the folder it leads to as the corpus"
            )


def is_macos_companion(name: str) -> bool:
    """Whether a file's name says that macOS left it beside others (AppleDouble, folder view)."""
    return name.startswith(_MACOS_COMPANION) or name == _MACOS_FOLDER_FILE


def printable_path(path: str) -> str:
    """A path with the bytes that are not UTF-8 written out as ``\\xNN``.

    Python holds such bytes as surrogates, which neither a digest nor Parquet can encode.
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def content_mark(info: Mapping[str, Any]) -> str:
    """What changes with a file's content, as fsspec reports it: the ETag, or seconds of mtime."""
    etag = info.get("ETag")
    return str(etag).strip('"') if etag is not None else str(int(info.get("mtime", 0)))


def read_texts(root: Location, files: Sequence[CorpusFile]) -> dict[str, bytes | None]:
    """Read many small files, concurrently where the store allows.

    Returns:
        Path to content, without a byte order mark; None for a file that cannot be read or is
        larger than any transcript.

    Raises:
        OSError: when the store fails; the files themselves may be sound.
    """
    filesystem = root.filesystem
    contents: dict[str, bytes | None] = {
        file.path: None for file in files if file.size > _MAX_TEXT_BYTES
    }
    wanted = [file for file in files if file.size <= _MAX_TEXT_BYTES]
    for start in range(0, len(wanted), _TEXTS_PER_REQUEST):
        batch = wanted[start : start + _TEXTS_PER_REQUEST]
        paths = [root.child(file.path).path for file in batch]
        # Not "cat": that would take brackets in a path for a pattern.
        answers = filesystem.cat_ranges(paths, None, None, on_error="return")
        for file, answer in zip(batch, answers, strict=True):
            if isinstance(answer, BaseException) and not _is_of_the_file(answer):
                raise answer
            contents[file.path] = (
                bytes(answer).removeprefix(codecs.BOM_UTF8) if isinstance(answer, bytes) else None
            )
    return contents


def _is_of_the_file(error: BaseException) -> bool:
    """Whether a file cannot be read, now or later; else the store failed, or the disk."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return True
    return isinstance(error, OSError) and error.errno in (errno.ELOOP, errno.ENAMETOOLONG)


def make_listing(
    root: Location,
    entries: Iterable[CorpusEntry],
    rejects: Iterable[Reject],
    files: Mapping[str, CorpusFile],
    tables: str = "",
) -> CorpusListing:
    """Sort the entries and seal them with their digest.

    Args:
        files: every listed file by its path; an entry's audio and alignment are among them.
        tables: digest of the tables that state the entries, where tables do.
    """
    listing = CorpusListing.of(root, entries, rejects)
    digest = hashlib.sha256(tables.encode())
    for entry in sorted(listing.entries, key=lambda entry: entry.audio):
        parts = [entry.subset, entry.utterance_id, entry.speaker_id, entry.text]
        for path in (entry.audio, entry.alignment):
            if path is not None:
                parts += [path, str(files[path].size), files[path].mark]
        digest.update("\0".join(parts).encode() + b"\n")
    # Rejects are published with the features, so a new one makes a new feature set.
    for reject in listing.rejects:
        digest.update("\0".join(["reject", reject.path, reject.reason]).encode() + b"\n")
    return replace(listing, digest=digest.hexdigest())


class FolderScanner:
    """Gathers entries and rejects over the folders of one corpus."""

    def __init__(self, root: Location) -> None:
        self.root = root
        self.files: dict[str, CorpusFile] = {}
        self.entries: list[CorpusEntry] = []
        self.rejects: list[Reject] = []
        self._seen: set[str] = set()

    def _reject(
        self, utterance_id: str, subset: str, path: str, reason: RejectReason, detail: str
    ) -> None:
        self.rejects.append(Reject(utterance_id, subset, path, reason, detail))

    def listing(self) -> CorpusListing:
        """The listing of all that was gathered."""
        return make_listing(self.root, self.entries, self.rejects, self.files)


def names_for_message(names: Iterable[str], limit: int = 12) -> str:
    """A short readable list of names, for error messages."""
    ordered = sorted(names)
    shown = ", ".join(ordered[:limit]) or "nothing"
    return shown + (f" and {len(ordered) - limit} more" if len(ordered) > limit else "")
