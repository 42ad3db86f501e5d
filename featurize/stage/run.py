"""Stages: pure functions of (config, upstream) that write to a fingerprinted location.

A location without its ``manifest.json`` does not exist: data is written first and the
manifest last, with the checksum of every file and of itself. Running a finished stage again does
nothing; two runs of one stage at once take turns, and the second finds the first one's result.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from featurize.stage.lease import held_lease, remove_claims_of_ended_runs
from featurize.stage.locations import Location
from featurize.stage.manifest import MANIFEST_NAME, StageManifest, is_finished, write_manifest
from featurize.stage.typed_config import TypedConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageResult:
    """Where a stage's result is, and whether it was there already."""

    location: Location
    fingerprint: str
    skipped: bool


def fingerprint(parts: dict[str, Any]) -> str:
    """Name a stage's result by all that determines it.

    Args:
        parts: the code's version, the upstream's fingerprint, the corpus digest, and
            configurations, of which :meth:`TypedConfig.determining` is taken.

    Returns:
        Sixteen hexadecimal digits of the SHA-256 of the canonical JSON.

    Example:
        >>> fingerprint({"version": 1, "corpus": "3f0c"})
        '72752de8bad8a613'
    """
    plain = {k: v.determining() if isinstance(v, TypedConfig) else v for k, v in parts.items()}
    text = json.dumps(plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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

    Example:
        >>> import tempfile
        >>> class Greeting(StageManifest):
        ...     def own_names(self) -> frozenset[str]:
        ...         return frozenset({"greeting.txt"})
        >>> def greet(place: Location) -> Greeting:
        ...     place.child("greeting.txt").write_bytes(b"hello")
        ...     return Greeting(
        ...         stage="greet", schema_version=1, fingerprint="f0", created_at="", versions={}
        ...     )
        >>> place = Location.of(tempfile.mkdtemp()).child("greet", "f0")
        >>> run_stage(place, "f0", greet).skipped, run_stage(place, "f0", greet).skipped
        (False, True)
        >>> [file.name for file in place.children()]
        ['greeting.txt', 'manifest-copy.json', 'manifest.json']
    """
    if is_finished(location) and not force:
        remove_claims_of_ended_runs(location)
        return StageResult(location, stage_fingerprint, skipped=True)
    with held_lease(location) as lease:
        if is_finished(location) and not force:  # by whom we waited for
            return StageResult(location, stage_fingerprint, skipped=True)
        if force:
            # The manifest goes first, so that a crash halfway leaves an unfinished location.
            location.child(MANIFEST_NAME).remove()
            location.remove()
        location.remove_partial()
        if location.is_local:
            location.files()  # refuses links, through which a write would land elsewhere
        manifest = work(location)
        lease.check()
        _clear_leftovers(location, manifest.own_names())
        write_manifest(location, manifest)
    return StageResult(location, stage_fingerprint, skipped=False)


def _clear_leftovers(location: Location, own_names: frozenset[str]) -> None:
    """Remove what is no part of the result: progress, and files of an interrupted run."""
    below: dict[str, set[str]] = {}
    for name in own_names:
        folder, _, file = name.partition("/")
        below.setdefault(folder, set()).add(file)
    for child in location.children():
        names = below.get(child.name)
        if names is None:
            logger.debug("removing %s: it is no part of the result", child)
            child.remove()
        elif "" not in names:  # else all of it is the result's
            _clear_leftovers(child, frozenset(names))
