"""Locations: a directory or file on a local path or on S3, through fsspec.

Everything the pipeline stores goes through here, so that a local run and an S3 run are the
same code. Writing one object is atomic: locally a temporary file is renamed, on S3 an object
appears only when its upload completes.
"""

import logging
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from featurize.stage.errors import PipelineError

if TYPE_CHECKING:
    # Slow to load: where a model is only run, nothing opens a filesystem.
    import fsspec
    import pyarrow.fs

_SCHEME = re.compile(r"^([a-z0-9+.-]+)://", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_MOST_REMOVALS = 10
"""Attempts to remove what others remove, too."""
_KEYS_PER_REQUEST = 1000
_PARTIAL = re.compile(r"^\..*\.partial$", re.DOTALL)

logger = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def _s3_filesystem(
    process_id: int, endpoint: str | None, access_key_id: str | None
) -> "fsspec.AbstractFileSystem":
    """One S3 filesystem per process, made anew where the environment names another store or user.

    Credentials and endpoint come from the environment only.
    """
    config: dict[str, Any] = {
        "retries": {"max_attempts": 5, "mode": "standard"},
        "connect_timeout": 10,
        "read_timeout": 60,
    }
    if endpoint:
        # S3-compatible stores do not know AWS's newer default checksums.
        config |= {
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
    import fsspec

    # fsspec's own cache of filesystems would hand out the client of an earlier environment.
    return fsspec.filesystem(
        "s3", config_kwargs=config, use_listings_cache=False, skip_instance_cache=True
    )


@dataclass(frozen=True)
class Location:
    """A place named by a local path or an ``s3://bucket/key`` address.

    Example:
        >>> runs = Location.of("s3://speech/runs/")
        >>> runs.child("featurize", "shard-00000.parquet").uri
        's3://speech/runs/featurize/shard-00000.parquet'
        >>> runs.is_local
        False
    """

    uri: str  # absolute local path without a trailing slash, or ``s3://bucket/key``

    @classmethod
    def of(cls, uri: "str | Path | Location") -> "Location":
        """Normalise what a person types.

        Raises:
            PipelineError: when the scheme is neither a plain path nor ``s3://``, or the address
                carries credentials, climbs, or holds control characters or bytes that are not
                UTF-8 (results name their sources, in JSON and Parquet).
        """
        if isinstance(uri, Location):
            return uri
        text = str(uri)
        if _CONTROL.search(text):
            raise PipelineError(f"location {text[:80]!r}: control characters are not taken")
        if _SURROGATE.search(text):
            shown = os.fsencode(text).decode("utf-8", "backslashreplace")
            raise PipelineError(f"location {shown[:80]} is not UTF-8; rename the folder")
        scheme = _SCHEME.match(text)
        if scheme is None:
            return cls(os.path.abspath(os.path.expanduser(text)))
        if scheme.group(1).lower() != "s3":
            raise PipelineError(
                f"location {text!r}: only local paths and s3:// addresses are supported"
            )
        bucket, _, key = text[len("s3://") :].partition("/")
        if "@" in bucket or ":" in bucket:
            # What was typed is not repeated: it would stand in logs and manifests.
            raise PipelineError(
                "an s3:// address takes no credentials; set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or use an instance role"
            )
        if not bucket or bucket in (".", ".."):
            raise PipelineError(f"location {text!r}: an s3:// address needs a bucket name")
        if ".." in key.split("/"):
            raise PipelineError(f"location {text!r}: '..' has no meaning in an s3:// address")
        # An empty part, as an unset variable leaves it, names another object than it seems to.
        parts = [part for part in key.split("/") if part]
        return cls("/".join([f"s3://{bucket}", *parts]))

    @property
    def is_local(self) -> bool:
        """Whether this is a path on this machine."""
        return not self.uri.startswith("s3://")

    @property
    def filesystem(self) -> "fsspec.AbstractFileSystem":
        """The fsspec filesystem that serves this location."""
        if self.is_local:
            from fsspec.implementations.local import LocalFileSystem

            return LocalFileSystem()
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint and urlsplit(endpoint).path.strip("/"):
            raise PipelineError(
                f"AWS_ENDPOINT_URL={endpoint}: an endpoint is scheme, host and port alone; the "
                "bucket belongs into the s3:// address"
            )
        return _s3_filesystem(os.getpid(), endpoint, os.environ.get("AWS_ACCESS_KEY_ID"))

    @property
    def path(self) -> str:
        """The path as the filesystem knows it (``bucket/key`` on S3)."""
        return self.uri if self.is_local else self.uri[len("s3://") :]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    @property
    def parent(self) -> "Location":
        """The location that holds this one."""
        return Location(self.uri.rsplit("/", 1)[0])

    def arrow(self) -> "pyarrow.fs.FileSystem":
        """The same filesystem for pyarrow (s3fs underneath on S3, never pyarrow's own client)."""
        import pyarrow.fs

        if self.is_local:
            return pyarrow.fs.LocalFileSystem()
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(self.filesystem))

    def child(self, *parts: str) -> "Location":
        """The location below this one; a part may not climb out of it.

        Raises:
            PipelineError: when a part is empty, absolute, contains ``..`` or control characters.
        """
        for part in parts:
            climbs = part.startswith("/") or ".." in PurePosixPath(part).parts
            if not part or climbs or _CONTROL.search(part):
                raise PipelineError(f"{part[:80]!r} does not lie below {self.uri}")
        return Location("/".join([self.uri, *parts]))

    def exists(self) -> bool:
        """Whether a file or directory stands here."""
        return bool(self.filesystem.exists(self.path))

    def is_dir(self) -> bool:
        """Whether a directory (or an S3 prefix with objects) stands here."""
        return bool(self.filesystem.isdir(self.path))

    def children(self) -> list["Location"]:
        """Direct children, sorted by name; empty where nothing stands."""
        if not self.is_dir():
            return []
        names = self.filesystem.ls(self.path, detail=False)
        prefix = "" if self.is_local else "s3://"
        # Not the marker of this folder itself, see is_folder_marker.
        found = {Location(prefix + str(name).rstrip("/")) for name in names} - {self}
        return sorted(found, key=lambda loc: loc.uri)

    @contextmanager
    def open_read(self) -> Iterator[IO[bytes]]:
        """Open for random-access binary reading."""
        with self.filesystem.open(self.path, "rb") as stream:
            yield cast(IO[bytes], stream)

    def read_bytes(self) -> bytes:
        """The whole content."""
        return cast(bytes, self.filesystem.cat_file(self.path))

    @contextmanager
    def open_write(self) -> Iterator[IO[bytes]]:
        """Write one object that becomes visible whole or not at all."""
        if self.is_local:
            target = Path(self.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
            try:
                with temporary.open("wb") as stream:
                    yield stream
                    stream.flush()
                    os.fsync(stream.fileno())
                temporary.replace(target)
                _sync_folder(target.parent)
            finally:
                temporary.unlink(missing_ok=True)
            return
        stream = self.filesystem.open(self.path, "wb", block_size=16 * 2**20)
        try:
            yield cast(IO[bytes], stream)
        except BaseException:
            stream.discard()
            raise
        stream.close()

    def write_bytes(self, data: bytes) -> None:
        """Replace the content atomically."""
        with self.open_write() as stream:
            stream.write(data)

    def files(self) -> dict[str, int]:
        """Every file below, by its path from here, with its size in bytes.

        What a killed writer left half done is not among them.

        Raises:
            PipelineError: at a symbolic link: results hold plain files, and a link may lead out.
        """
        if self.is_local:
            return dict(sorted(_walk(Path(self.path))))
        prefix = self.path + "/"
        found = self.filesystem.find(self.path, detail=True)
        return {
            str(path)[len(prefix) :]: int(info["size"])
            for path, info in sorted(found.items())
            if str(path).startswith(prefix) and not is_folder_marker(str(path))
        }

    def remove_partial(self) -> None:
        """Remove what killed writers left below: temporary files, or unfinished S3 uploads.

        Only for the one run that writes here; another's running write would be lost.
        """
        if self.is_local:
            for path in Path(self.path).rglob(".*.partial"):
                if path.is_file() and not path.is_symlink():
                    logger.info("removing %s, left by a run that was killed", path)
                    path.unlink(missing_ok=True)
            return
        bucket, _, key = self.path.partition("/")
        try:
            answer = self.filesystem.call_s3(
                "list_multipart_uploads", Bucket=bucket, Prefix=f"{key}/"
            )
            for upload in answer.get("Uploads", ()):
                logger.info("aborting the upload of %s, left by a killed run", upload["Key"])
                self.filesystem.call_s3(
                    "abort_multipart_upload",
                    Bucket=bucket,
                    Key=upload["Key"],
                    UploadId=upload["UploadId"],
                )
        except (OSError, NotImplementedError) as error:
            # Not every store can list them; they are invisible either way.
            logger.debug("unfinished uploads below %s cannot be listed: %s", self, error)

    def remove(self) -> None:
        """Remove the file or the whole tree, if there is one; others may be removing it, too."""
        for _ in range(_MOST_REMOVALS):
            if not self.exists():
                return
            try:
                self._remove()
            except FileNotFoundError:  # another was faster with a part of it
                continue
        if self.exists():
            raise PipelineError(f"{self} cannot be removed: something else writes there")

    def _remove(self) -> None:
        if self.is_local:
            self.filesystem.rm(self.path, recursive=True)
            return
        # Not "rm": that would take brackets in a path for a pattern, and remove what fits it.
        bucket = self.path.partition("/")[0]
        found = (str(path) for path in self.filesystem.find(self.path))
        own = (path for path in found if path == self.path or path.startswith(f"{self.path}/"))
        keys = [path.partition("/")[2] for path in own]
        for start in range(0, len(keys), _KEYS_PER_REQUEST):
            batch = [{"Key": key} for key in keys[start : start + _KEYS_PER_REQUEST]]
            wanted = {"Objects": batch, "Quiet": True}
            answer = self.filesystem.call_s3("delete_objects", Bucket=bucket, Delete=wanted)
            for error in answer.get("Errors", ()):
                if not is_folder_marker(error["Key"]):
                    raise OSError(
                        f"s3://{bucket}/{error['Key']} cannot be removed: {error.get('Message')}"
                    )

    def __str__(self) -> str:
        return self.uri


def is_folder_marker(path: str) -> bool:
    """Whether an object is only the sign of a folder, ``KEY/``, that consoles and tools put on S3.

    A file's name has no slash at its end, so locally there are none.
    """
    return path.endswith("/")


def _walk(folder: Path) -> Iterator[tuple[str, int]]:
    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error  # else what cannot be read would be as if it were not there

    for directory, folders, names in os.walk(folder, onerror=refuse):
        for name in (*folders, *names):
            path = Path(directory, name)
            if path.is_symlink():
                raise PipelineError(f"{path} is a symbolic link; results hold plain files only")
            if name in names and not _PARTIAL.match(name):
                yield path.relative_to(folder).as_posix(), path.stat().st_size


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder outlast a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
