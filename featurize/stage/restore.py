"""What verifying and repairing need of any stage's result, whichever stage it is of."""

import json
import logging
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

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


@dataclass(frozen=True)
class SealedResult:
    """What stands at a stage's location, for whoever verifies or repairs it."""

    location: Location
    types: Mapping[str, type[StageManifest]]  # name of a stage to the type of its manifest

    @property
    def is_declared(self) -> bool:
        """Whether a result was declared here, even if only the copy of its manifest is left."""
        return is_finished(self.location) or self._copy.exists()

    @property
    def _file(self) -> Location:
        return self.location.child(MANIFEST_NAME)

    @property
    def _copy(self) -> Location:
        return self.location.child(MANIFEST_COPY_NAME)

    def manifest(self) -> StageManifest:
        """The manifest, as its own stage's type."""
        if not self._file.exists():
            raise PipelineError("it is missing")
        content = read_manifest_bytes(self._file)
        try:
            manifest_type = self.types[json.loads(content)["stage"]]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise PipelineError(f"{self._file} is damaged: it names no stage") from error
        return read_manifest(self.location, manifest_type)

    def damage(self, manifest: StageManifest) -> Iterator[Damage]:
        """Files that differ from their checksums, and a copy that differs from the manifest."""
        if manifest.manifest_sha256:  # earlier versions wrote none, and no copy
            if not self._copy.exists():
                yield Damage(MANIFEST_COPY_NAME, "it is missing")
            elif self._copy.read_bytes() != self._file.read_bytes():
                yield Damage(MANIFEST_COPY_NAME, "it differs from the manifest")
        yield from find_damage(self.location, self._checksums(manifest))

    def num_files(self, manifest: StageManifest) -> int:
        """Files that have a checksum."""
        return len(self._checksums(manifest))

    def leftovers(self, manifest: StageManifest) -> list[str]:
        """Files that the manifest has no checksum for; one of an earlier version had some only."""
        if not manifest.checksums:
            return []
        present = set(self.location.files()) - UNSEALED_NAMES
        return sorted(present - set(self._checksums(manifest)))

    @staticmethod
    def _checksums(manifest: StageManifest) -> dict[str, FileChecksum]:
        return dict(manifest.checksums) or manifest.known_checksums()

    def restore_manifest(self) -> None:
        """Put the copy in the place of a damaged manifest."""
        problem = "there is no copy"
        if self._copy.exists():
            content = read_manifest_bytes(self._copy)
            for manifest_type in self.types.values():
                try:
                    manifest = parse_manifest(self.location, content, manifest_type)
                except PipelineError:
                    problem = "its copy is damaged too"
                    continue
                if manifest.fingerprint == self.location.name and manifest.manifest_sha256:
                    logger.info("restoring %s from its copy", self._file)
                    self._file.write_bytes(content)
                    return
        raise PipelineError(
            f"{self._file} is damaged and {problem}: nothing says what the files should be; run "
            "the stage again with --force"
        )

    def restore_copy(self, manifest: StageManifest, damaged: Set[str]) -> set[str]:
        """Write the manifest's copy again where it is damaged; returns the other damaged files."""
        if MANIFEST_COPY_NAME in damaged:
            write_sealed(self.location, manifest)
        return set(damaged - UNSEALED_NAMES)

    def seal_again(self, manifest: StageManifest, files: Set[str]) -> None:
        """Take new checksums of files that were redone, and none of files that are gone."""
        checksums = dict(manifest.checksums)
        present = self.location.files()
        for name in set(checksums) - set(present):
            del checksums[name]
        for name in files & set(present) & set(checksums):
            sha256, num_bytes = sha256_of(self.location.child(name))
            checksums[name] = FileChecksum(num_bytes=num_bytes, sha256=sha256)
        write_sealed(self.location, manifest.model_copy(update={"checksums": checksums}))
