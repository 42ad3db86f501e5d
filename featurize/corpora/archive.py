"""Unpacking a corpus's ``.tar.gz`` as distributed, without trusting it.

Only plain files and folders are taken; a member that is a link or device, or whose path is
absolute or climbs out, ends the whole extraction. The result appears at once: it is written
beside the target and renamed.
"""

import glob
import gzip
import logging
import os
import shutil
import tarfile
import uuid
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, Self

from pydantic import ValidationError

from featurize.corpora.listing import content_mark
from featurize.stage import Location, PipelineError, TypedConfig, held_lease

MARKER_NAME = ".extracted.json"
ARCHIVE_SUFFIXES = (".tar.gz", ".tgz")

_COPY_BYTES = 2**20
# Long names and extended headers are read into memory by tarfile as large as they claim to be.
_MAX_HEADER_BYTES = 2**16
_HEADER_TYPES = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)
_log = logging.getLogger(__name__)


class ExtractionLimits(NamedTuple):
    """What an archive may hold at most; the largest of LibriSpeech's has 150,000 files, 30 GB."""

    max_members: int = 1_000_000  # files and folders
    max_member_bytes: int = 4 * 2**30
    max_total_bytes: int = 256 * 2**30


class ExtractionMarker(TypedConfig):
    """What an extracted folder says of the archive it came from."""

    archive: str
    size: int
    mark: str


def is_archive(location: Location) -> bool:
    """Whether a name is that of an archive this module unpacks."""
    return location.name.lower().endswith(ARCHIVE_SUFFIXES)


def extract_archive(
    archive: Location, target: Location, limits: ExtractionLimits | None = None
) -> ExtractionMarker:
    """Unpack an archive into a folder of its own, or find that this was done before.

    Args:
        archive: a ``.tar.gz``, local or on S3; it is streamed.
        target: the folder, on this machine; it appears when all members are in place.
        limits: of the number and sizes of members.

    Returns:
        The marker that stands in the folder.

    Raises:
        PipelineError: when the archive is missing, damaged, over a limit or unsafe, or the
            target is not local or holds something else. Nothing is left behind then.
    """
    if not target.is_local:
        raise PipelineError(f"{target}: an archive is unpacked into a local folder; give one")
    if not archive.exists() or archive.is_dir():
        raise PipelineError(f"no archive at {archive}; check the path")
    info = archive.filesystem.info(archive.path)
    marker = ExtractionMarker(archive=archive.name, size=int(info["size"]), mark=content_mark(info))
    final = Path(target.path)
    existing = _existing_marker(final)
    if existing == marker:
        return existing
    if final.exists() and existing is None and not _is_empty_folder(final):
        raise PipelineError(f"{final} holds something else; choose another folder for {archive}")
    with held_lease(target):
        existing = _existing_marker(final)
        if existing == marker:
            return existing  # by whom we waited for
        return _extract_whole(archive, final, marker, limits or ExtractionLimits())


def _extract_whole(
    archive: Location, final: Path, marker: ExtractionMarker, limits: ExtractionLimits
) -> ExtractionMarker:
    """Unpack beside the target and rename; only one run at a time does."""
    if final.parent.is_dir():
        for leftover in final.parent.glob(f".{glob.escape(final.name)}.*.partial"):
            _log.info("removing %s, left by a run that was killed", leftover)
            shutil.rmtree(leftover)
    partial = final.with_name(f".{final.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.mkdir(parents=True)
        num_files, num_bytes = _extract(archive, partial, limits)
        (partial / MARKER_NAME).write_text(marker.model_dump_json(indent=1) + "\n")
        if final.exists():
            shutil.rmtree(final)  # empty, or unpacked from an older archive of this name
        partial.rename(final)
    except OSError as error:
        raise PipelineError(f"cannot unpack {archive} into {final}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _log.info("unpacked %s: %d files, %d bytes", archive, num_files, num_bytes)
    return marker


def _existing_marker(final: Path) -> ExtractionMarker | None:
    try:
        return ExtractionMarker.model_validate_json((final / MARKER_NAME).read_bytes())
    except (OSError, ValidationError):
        return None


def _is_empty_folder(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


class _BoundedTarInfo(tarfile.TarInfo):
    """A member header that refuses to announce more header than a name can need."""

    def _proc_member(self, archive: tarfile.TarFile) -> Self | tarfile.TarInfo:
        # Called for every header before what it announces is read, in every Python from 3.11 to
        # 3.14; since 3.13 the public frombuf is not.
        if self.type in _HEADER_TYPES and self.size > _MAX_HEADER_BYTES:
            raise PipelineError(
                f"the archive has a header of {self.size} bytes; it is not a corpus"
            )
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return member


def _extract(archive: Location, folder: Path, limits: ExtractionLimits) -> tuple[int, int]:
    """Stream all members into a fresh folder; returns the numbers of files and of bytes."""
    num_members = num_files = num_bytes = 0
    try:
        with (
            archive.open_read() as raw,
            gzip.GzipFile(fileobj=raw) as unzipped,
            tarfile.open(fileobj=unzipped, mode="r|", tarinfo=_BoundedTarInfo) as tar,
        ):
            for member in tar:
                num_members += 1
                if num_members > limits.max_members:
                    raise PipelineError(f"{archive} has over {limits.max_members} members")
                path = _safe_path(archive, member)
                if member.isdir():
                    (folder / path).mkdir(parents=True, exist_ok=True)
                    continue
                num_bytes += member.size
                if member.size > limits.max_member_bytes or num_bytes > limits.max_total_bytes:
                    raise PipelineError(f"{archive}: {path} exceeds the limits on unpacked size")
                content = tar.extractfile(member)
                assert content is not None  # _safe_path let only plain files through
                _write_member(content, folder / path, member)
                num_files += 1
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PipelineError(f"{archive} is damaged ({error}); fetch it again") from error
    if num_files == 0:
        raise PipelineError(f"{archive} holds no files; fetch it again")
    return num_files, num_bytes


def _safe_path(archive: Location, member: tarfile.TarInfo) -> PurePosixPath:
    """The member's path below the target, if it may be written."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\0" in member.name:
        raise PipelineError(f"{archive}: member {member.name!r} would land outside; not unpacked")
    if not (member.isreg() or member.isdir()) or member.sparse is not None:
        raise PipelineError(
            f"{archive}: member {member.name!r} is a link, device or sparse file; not unpacked"
        )
    if path.parts[:1] == (MARKER_NAME,):
        raise PipelineError(f"{archive}: member {member.name!r} has a reserved name; not unpacked")
    return path


def _write_member(content: IO[bytes], target: Path, member: tarfile.TarInfo) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # "x": a second member of the same name must not replace the first.
    with target.open("xb") as stream:
        shutil.copyfileobj(content, stream, _COPY_BYTES)
    # The digest of a corpus looks at modification times: those in the archive stay the same.
    modified_at = min(max(int(member.mtime), 0), 2**32)
    os.utime(target, (modified_at, modified_at))
