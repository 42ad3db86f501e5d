"""Stages: pure functions of (config, upstream) that write to a fingerprinted location.

A location without its ``manifest.json`` does not exist: data is written first and the
manifest last. Running a finished stage again does nothing.
"""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from featurize.errors import PipelineError
from featurize.locations import Location
from featurize.typed_config import TypedConfig

MANIFEST_NAME = "manifest.json"
_MAX_MANIFEST_BYTES = 256 * 2**20


class StageManifest(TypedConfig):
    """What every finished stage says of itself; stages add their own fields."""

    stage: str
    schema_version: int
    fingerprint: str
    upstream: dict[str, str] = Field(default_factory=dict)
    created_at: str
    versions: dict[str, str]


ManifestT = TypeVar("ManifestT", bound=StageManifest)


@dataclass(frozen=True)
class StageResult:
    """Where a stage's result is, and whether it was there already."""

    location: Location
    fingerprint: str
    skipped: bool


def fingerprint(parts: dict[str, Any]) -> str:
    """Name a stage's result by all that determines it.

    Args:
        parts: JSON-able values and pydantic models: config, upstream fingerprint, corpus
            digest, code version.

    Returns:
        Sixteen hexadecimal digits of the SHA-256 of the canonical JSON.
    """

    def plain(value: Any) -> Any:
        return value.model_dump(mode="json") if isinstance(value, BaseModel) else value

    text = json.dumps({k: plain(v) for k, v in parts.items()}, sort_keys=True, default=plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
    """Read and validate a stage's manifest.

    Raises:
        PipelineError: when there is none, it is of another stage or version, or damaged.
    """
    file = location.child(MANIFEST_NAME)
    if not file.exists():
        raise PipelineError(
            f"no finished stage at {location}: {MANIFEST_NAME} is missing; check the path, or run "
            "the stage that writes it"
        )
    try:
        if file.filesystem.size(file.path) > _MAX_MANIFEST_BYTES:
            raise PipelineError(f"{file} is too large to be a manifest; run the stage again")
        return manifest_type.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise PipelineError(
            f"{file} is not a manifest this version reads ({where}: {first['msg']}); "
            "remove the location and run the stage again"
        ) from error


def write_manifest(location: Location, manifest: StageManifest) -> None:
    """Declare a stage finished; call this last."""
    location.child(MANIFEST_NAME).write_bytes(manifest.model_dump_json(indent=1).encode())


def run_stage(
    location: Location,
    stage_fingerprint: str,
    work: Callable[[Location], StageManifest],
    *,
    force: bool = False,
) -> StageResult:
    """Do a stage's work unless its result is already complete.

    Args:
        location: where the result goes; named by the fingerprint.
        stage_fingerprint: the name, repeated in the result.
        work: writes the data below the location and returns the manifest.
        force: remove a finished result and do the work again.
    """
    if is_finished(location) and not force:
        return StageResult(location, stage_fingerprint, skipped=True)
    if force:
        # The manifest goes first, so that a crash halfway leaves an unfinished location.
        location.child(MANIFEST_NAME).remove()
        location.remove()
    write_manifest(location, work(location))
    return StageResult(location, stage_fingerprint, skipped=False)
