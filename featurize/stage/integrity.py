"""Checksums of the files of a finished stage, and whether the files still have them.

A manifest lists the size and SHA-256 of every file of its stage, and its own digest. The digest
is taken over the JSON's values, not over a model of them, so that a version with more fields
still verifies an older manifest.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from featurize.stage.errors import PipelineError
from featurize.stage.locations import Location
from featurize.stage.typed_config import TypedConfig, VerifyMode

_CHUNK_BYTES = 4 * 2**20
_SAMPLED_SHARE = 8
"""One file in so many is read whole when sampling, and always one."""


class FileChecksum(TypedConfig):
    """Size and SHA-256 of one file."""

    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Damage:
    """One file that is not as its manifest says."""

    file: str  # path below the stage's location
    problem: str


def sha256_of(file: Location) -> tuple[str, int]:
    """SHA-256 and size of a file, read in pieces."""
    digest, num_bytes = hashlib.sha256(), 0
    with file.open_read() as stream:
        while piece := stream.read(_CHUNK_BYTES):
            digest.update(piece)
            num_bytes += len(piece)
    return digest.hexdigest(), num_bytes


def take_checksums(
    location: Location, known: Mapping[str, FileChecksum], skipped: frozenset[str]
) -> dict[str, FileChecksum]:
    """Checksums of every file below a location.

    Args:
        location: a stage's location, all of its data written.
        known: taken while writing; these files are not read again.
        skipped: files that are left out.
    """
    files = {name: size for name, size in location.files().items() if name not in skipped}
    for name, checksum in known.items():
        if files.get(name) != checksum.num_bytes:
            raise PipelineError(
                f"{location.child(name)} was written with {checksum.num_bytes} bytes and now has "
                f"{files.get(name, 'no file')}; something else writes there; run the stage again"
            )
    taken = {}
    for name in files:
        if name in known:
            taken[name] = known[name]
        else:
            sha256, num_bytes = sha256_of(location.child(name))
            taken[name] = FileChecksum(num_bytes=num_bytes, sha256=sha256)
    return taken


def find_damage(
    location: Location, expected: Mapping[str, FileChecksum], mode: VerifyMode = "full"
) -> Iterator[Damage]:
    """Compare files with their checksums.

    Args:
        expected: path below it to the checksum it should have.
        mode: ``full`` reads every file; ``sampled`` compares all sizes and reads one file in
            eight, drawn anew each time, so that repeated runs come to read everything.
    """
    if mode == "off" or not expected:
        return
    chosen = set(expected)
    if mode == "sampled":
        names = sorted(expected)
        chosen = set(random.SystemRandom().sample(names, -(-len(names) // _SAMPLED_SHARE)))
    for name, checksum in sorted(expected.items()):
        file = location.child(name)
        sha256 = checksum.sha256
        try:
            if name in chosen:
                sha256, num_bytes = sha256_of(file)
            else:
                num_bytes = int(file.filesystem.size(file.path))
        except FileNotFoundError:
            yield Damage(name, "it is missing")
            continue
        if num_bytes != checksum.num_bytes:
            yield Damage(name, f"it has {num_bytes} bytes instead of {checksum.num_bytes}")
        elif sha256 != checksum.sha256:
            yield Damage(name, "its SHA-256 is not the manifest's")


def damage_error(location: Location, damage: Damage) -> PipelineError:
    """The error of a damaged file: names it, and the command that redoes it alone."""
    return PipelineError(
        f"{location.child(damage.file)} is damaged: {damage.problem}; redo that file alone with: "
        f"spikeline repair {location}"
    )


def content_digest(content: Mapping[str, Any], without: str) -> str:
    """SHA-256 of a JSON object's values, one field left out."""
    rest = {key: value for key, value in content.items() if key != without}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
