"""Manifests: what a finished stage says of itself, written last and held against its own digest."""

import importlib.metadata
import json
import platform
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import Field, ValidationError

from featurize.stage.errors import PipelineError, condense
from featurize.stage.integrity import (
    FileChecksum,
    content_digest,
    damage_error,
    find_damage,
    take_checksums,
)
from featurize.stage.locations import Location
from featurize.stage.typed_config import TypedConfig

MANIFEST_NAME = "manifest.json"
MANIFEST_COPY_NAME = "manifest-copy.json"
"""The same bytes again: a damaged manifest could otherwise not even say what it was."""
UNSEALED_NAMES = frozenset({MANIFEST_NAME, MANIFEST_COPY_NAME})
_DIGEST_FIELD = "manifest_sha256"
_MAX_MANIFEST_BYTES = 256 * 2**20


class StageManifest(TypedConfig):
    """What every finished stage says of itself; stages add their own fields."""

    stage: str
    schema_version: int
    fingerprint: str
    upstream: dict[str, str] = Field(default_factory=dict)
    created_at: str
    versions: dict[str, str]
    # path below the location to size and SHA-256 of each file; empty in manifests of earlier
    # versions
    checksums: dict[str, FileChecksum] = Field(default_factory=dict)
    manifest_sha256: str = ""  # digest of all other values; filled in when the manifest is written

    def known_checksums(self) -> dict[str, FileChecksum]:
        """Checksums taken while the files were written, which need no second reading."""
        return {}

    def own_names(self) -> frozenset[str]:
        """The files and folders below the location that the result consists of.

        A name is of something directly below it, or with a slash of a file in a folder there.

        Whatever else stands there when the stage ends is removed: progress, and files of a run
        that was interrupted.
        """
        raise NotImplementedError


ManifestT = TypeVar("ManifestT", bound=StageManifest)


def software_versions(*packages: str) -> dict[str, str]:
    """Python's and the named packages' versions, for manifests and result tables."""
    versions = {"python": platform.python_version()}
    for package in packages:
        versions[package] = importlib.metadata.version(package)
    return versions


def timestamp() -> str:
    """Now, in UTC, to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def is_finished(location: Location) -> bool:
    """Whether a stage's result is complete at this location."""
    return location.child(MANIFEST_NAME).exists()


def read_manifest(location: Location, manifest_type: type[ManifestT]) -> ManifestT:
    """Read and validate a stage's manifest, and hold it against its own digest.

    Raises:
        PipelineError: when there is none, it has other fields (of another stage or version), or it
            is damaged.
    """
    file = location.child(MANIFEST_NAME)
    if not file.exists():
        raise PipelineError(
            f"no finished stage at {location}: {MANIFEST_NAME} is missing; check the path, or run "
            "the stage that writes it"
        )
    return parse_manifest(location, read_manifest_bytes(file), manifest_type)


def read_manifest_bytes(file: Location) -> bytes:
    """A manifest's bytes, if they are few enough to be one."""
    if file.filesystem.size(file.path) > _MAX_MANIFEST_BYTES:
        raise PipelineError(f"{file} is too large to be a manifest; run the stage again")
    return file.read_bytes()


def parse_manifest(location: Location, content: bytes, manifest_type: type[ManifestT]) -> ManifestT:
    """Validate a manifest's bytes; see :func:`read_manifest`."""
    file = location.child(MANIFEST_NAME)
    try:
        manifest = manifest_type.model_validate_json(content)
    except ValidationError as error:
        raise PipelineError(
            f"{file} is not a manifest this version reads ({condense(error)}); "
            f"if it was made by this version, mend it with: spikeline repair {location}; else "
            "remove the location and run the stage again"
        ) from error
    if manifest.manifest_sha256 and manifest.manifest_sha256 != _digest(content):
        raise PipelineError(
            f"{file} is damaged: its values do not have the SHA-256 it states; mend it with: "
            f"spikeline repair {location}"
        )
    return manifest


def _digest(content: bytes) -> str:
    try:
        return content_digest(json.loads(content), _DIGEST_FIELD)
    except (ValueError, RecursionError):  # numbers of thousands of digits, endless nesting
        return "none"


def write_manifest(
    location: Location, manifest: StageManifest, others: frozenset[str] = frozenset()
) -> None:
    """Declare a stage finished, with checksums of all files below its location; call this last.

    Args:
        location: where the stage's files are.
        manifest: what it says of itself, without checksums.
        others: files below the location that are not the stage's.
    """
    checksums = take_checksums(location, manifest.known_checksums(), UNSEALED_NAMES | others)
    write_sealed(location, manifest.model_copy(update={"checksums": checksums}))


def write_sealed(location: Location, manifest: StageManifest) -> None:
    """Write a manifest whose checksums are taken: its copy first, then itself."""
    content = json.loads(manifest.model_dump_json())
    content[_DIGEST_FIELD] = content_digest(content, _DIGEST_FIELD)
    data = json.dumps(content, indent=1).encode()
    location.child(MANIFEST_COPY_NAME).write_bytes(data)
    location.child(MANIFEST_NAME).write_bytes(data)


def read_checked(location: Location, manifest: StageManifest, name: str) -> bytes:
    """A small file's bytes, held against the manifest's checksum where it has one."""
    expected = manifest.checksums.get(name)
    for damage in find_damage(location, {} if expected is None else {name: expected}):
        raise damage_error(location, damage)
    try:
        return location.child(name).read_bytes()
    except FileNotFoundError:
        raise PipelineError(f"{location.child(name)} is missing; run the stage again") from None
