"""What verifying and repairing need of any stage's result, whichever stage it is of."""

import json
import logging
from collections.abc import Collection, Iterator, Mapping

from featurize.stage.errors import PipelineError
from featurize.stage.integrity import Damage, FileChecksum, find_damage, sha256_of
from featurize.stage.locations import Location
from featurize.stage.manifest import (
    MANIFEST_COPY_NAME,
    MANIFEST_NAME,
    UNSEALED_NAMES,
    StageManifest,
    is_finished,
    parse_manifest,
    read_manifest,
    read_manifest_bytes,
    write_sealed,
)

logger = logging.getLogger(__name__)

ManifestTypes = Mapping[str, type[StageManifest]]
"""Name of a stage to the type of its manifest."""


def was_declared(location: Location) -> bool:
    """Whether a result was declared here, even if only the copy of its manifest is left."""
    return is_finished(location) or location.child(MANIFEST_COPY_NAME).exists()


def read_any_manifest(location: Location, types: ManifestTypes) -> StageManifest:
    """The manifest at a location, as its own stage's type.

    Raises:
        PipelineError: when it is missing or damaged.
    """
    file = location.child(MANIFEST_NAME)
    if not file.exists():
        raise PipelineError("it is missing")
    content = read_manifest_bytes(file)
    try:
        manifest_type = types[json.loads(content)["stage"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise PipelineError(f"{file} is damaged: it names no stage") from error
    return read_manifest(location, manifest_type)


def checksums_of(manifest: StageManifest) -> dict[str, FileChecksum]:
    """A checksum for each file that the manifest lists one for."""
    return dict(manifest.checksums) or manifest.known_checksums()


def result_damage(location: Location, manifest: StageManifest) -> Iterator[Damage]:
    """Files that differ from their checksums, and a copy that differs from the manifest."""
    copy = location.child(MANIFEST_COPY_NAME)
    if manifest.manifest_sha256:  # earlier versions wrote none, and no copy
        if not copy.exists():
            yield Damage(MANIFEST_COPY_NAME, "it is missing")
        elif copy.read_bytes() != location.child(MANIFEST_NAME).read_bytes():
            yield Damage(MANIFEST_COPY_NAME, "it differs from the manifest")
    yield from find_damage(location, checksums_of(manifest))


def leftovers(location: Location, manifest: StageManifest) -> list[str]:
    """Files that the manifest has no checksum for; one of an earlier version had some only."""
    if not manifest.checksums:
        return []
    return sorted(set(location.files()) - UNSEALED_NAMES - set(checksums_of(manifest)))


def restore_manifest(location: Location, types: ManifestTypes) -> None:
    """Put the copy in the place of a damaged manifest.

    Raises:
        PipelineError: when the copy is missing or damaged too.
    """
    copy = location.child(MANIFEST_COPY_NAME)
    problem = "there is no copy"
    if copy.exists():
        content = read_manifest_bytes(copy)
        for manifest_type in types.values():
            try:
                manifest = parse_manifest(location, content, manifest_type)
            except PipelineError:
                problem = "its copy is damaged too"
                continue
            if manifest.fingerprint == location.name and manifest.manifest_sha256:
                logger.info("restoring %s from its copy", location.child(MANIFEST_NAME))
                location.child(MANIFEST_NAME).write_bytes(content)
                return
    raise PipelineError(
        f"{location.child(MANIFEST_NAME)} is damaged and {problem}: nothing says what the files "
        "should be; run the stage again with --force"
    )


def seal_again(location: Location, manifest: StageManifest, files: Collection[str]) -> None:
    """Take new checksums of files that were redone, and none of files that are gone.

    Args:
        location: the result.
        manifest: its manifest.
        files: what was redone.
    """
    checksums = dict(manifest.checksums)
    present = location.files()
    for name in set(checksums) - set(present):
        del checksums[name]
    for name in set(files) & set(present) & set(checksums):
        sha256, num_bytes = sha256_of(location.child(name))
        checksums[name] = FileChecksum(num_bytes=num_bytes, sha256=sha256)
    write_sealed(location, manifest.model_copy(update={"checksums": checksums}))
