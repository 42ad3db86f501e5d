"""Verifying finished stages end to end, and redoing what is broken in them."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

from evaluation.evaluate import evaluate
from evaluation.manifest import EvaluateManifest
from featurize.repair import inspect_features, redo_features
from featurize.schema import FeaturizeManifest
from featurize.stage import (
    MANIFEST_COPY_NAME,
    MANIFEST_NAME,
    UNSEALED_NAMES,
    Damage,
    FileChecksum,
    Location,
    PipelineError,
    StageManifest,
    find_damage,
    held_lease,
    is_finished,
    parse_manifest,
    read_manifest,
    read_manifest_bytes,
    sha256_of,
    write_sealed,
)
from flows.comparison import read_metrics
from training.align.align import align
from training.align.config import AlignConfig
from training.checkpoint import load_recogniser
from training.manifest import TrainManifest
from training.repair import features_of, redo_training
from training.train import train
from training.worker_config import WorkerConfig

logger = logging.getLogger(__name__)

MANIFEST_TYPES: dict[str, type[StageManifest]] = {
    "featurize": FeaturizeManifest,
    "align": FeaturizeManifest,
    "import": FeaturizeManifest,
    "training": TrainManifest,
    "evaluation": EvaluateManifest,
}


@dataclass(frozen=True)
class Inspection:
    """What was found at one location.

    Attributes:
        stage: which stage's result it is; empty where nothing tells.
        damage: files that are not what they should be.
        leftovers: files that nothing vouches for.
        num_files: files compared with a checksum.
        is_finished: whether a result was declared; an unfinished one is continued by its stage.
    """

    location: Location
    stage: str
    damage: tuple[Damage, ...]
    leftovers: tuple[str, ...]
    num_files: int
    is_finished: bool

    @property
    def is_sound(self) -> bool:
        """Whether every file is there, whole, and vouched for."""
        return not self.damage and not self.leftovers


def stage_locations(root: Location) -> list[Location]:
    """A stage's location itself, or every stage's location below a runs folder.

    Raises:
        PipelineError: when the root is neither.
    """
    if is_finished(root) or root.child(MANIFEST_COPY_NAME).exists():
        return [root]
    if root.parent.name in MANIFEST_TYPES and root.is_dir():
        return [root]
    found = [
        place
        for stage in MANIFEST_TYPES
        for place in root.child(stage).children()
        if place.is_dir() and not place.name.startswith(".")
    ]
    if not found:
        raise PipelineError(
            f"{root} holds no stage's result and is no runs folder; name what --runs named, or "
            "one location below it"
        )
    return found


def inspect(location: Location) -> Inspection:
    """Check one location: manifest, checksums, leftovers, and that its content is usable."""
    if not is_finished(location) and not location.child(MANIFEST_COPY_NAME).exists():
        return Inspection(location, location.parent.name, (), (), 0, is_finished=False)
    try:
        manifest = _read_any_manifest(location)
    except PipelineError as error:
        return Inspection(
            location, location.parent.name, (Damage(MANIFEST_NAME, str(error)),), (), 0, True
        )
    checksums = _vouched(manifest)
    damage = [*_copy_damage(location, manifest), *find_damage(location, checksums)]
    if not damage:
        damage += _unusable(location, manifest)
    present = set(location.files()) - UNSEALED_NAMES
    # A manifest of an earlier version vouches for some files only: the rest is no leftover.
    leftovers = sorted(present - set(checksums)) if manifest.checksums else []
    return Inspection(
        location, manifest.stage, tuple(damage), tuple(leftovers), len(checksums), True
    )


def repair(
    location: Location,
    workers: WorkerConfig,
    corpus: Location | None = None,
) -> tuple[Inspection, Inspection]:
    """Redo what is broken at one location, and nothing else.

    Args:
        location: a stage's result.
        workers: where to train, should that be needed.
        corpus: where the corpus stands now; where it stood then if None.

    Returns:
        What was found before and after.

    Raises:
        PipelineError: when it cannot be mended from what there is.
    """
    before = inspect(location)
    if before.is_sound or not before.is_finished:
        return before, before
    with held_lease(location):
        if any(damage.file == MANIFEST_NAME for damage in before.damage):
            _restore_manifest(location)
            restored = inspect(location)
            before = replace(restored, damage=(*before.damage, *restored.damage))
        manifest = _read_any_manifest(location)
        for name in before.leftovers:
            logger.info("removing %s: nothing vouches for it", location.child(name))
            location.child(name).remove()
        location.remove_partial()
        files = {damage.file for damage in before.damage} - {MANIFEST_NAME}
        if MANIFEST_COPY_NAME in files:
            write_sealed(location, manifest)
            files.discard(MANIFEST_COPY_NAME)
        is_mended = not files or _redo(location, manifest, files, corpus)
    if not is_mended:
        _run_again(location, manifest, workers)
    return before, inspect(location)


def _redo(
    location: Location, manifest: StageManifest, files: set[str], corpus: Location | None
) -> bool:
    """Redo files under the lease; False where the whole stage has to run."""
    if isinstance(manifest, FeaturizeManifest) and manifest.stage == "featurize":
        changed: StageManifest = redo_features(location, manifest, files, corpus)
    elif isinstance(manifest, TrainManifest):
        if not redo_training(location, manifest, files):
            return False
        changed = manifest
    else:
        return False
    _seal_again(location, changed, files)
    return True


def _seal_again(location: Location, manifest: StageManifest, files: set[str]) -> None:
    """Vouch for what was redone, and no more for what was dropped."""
    checksums = dict(manifest.checksums)
    present = location.files()
    for name in set(checksums) - set(present):
        del checksums[name]
    for name in files & set(present) & set(checksums):
        sha256, num_bytes = sha256_of(location.child(name))
        checksums[name] = FileChecksum(num_bytes=num_bytes, sha256=sha256)
    write_sealed(location, manifest.model_copy(update={"checksums": checksums}))


def _run_again(location: Location, manifest: StageManifest, workers: WorkerConfig) -> None:
    runs = location.parent.parent
    if isinstance(manifest, TrainManifest):
        features_of(location, manifest)  # another result would not come to stand here
        logger.warning("%s has to be trained again, from its newest whole checkpoint", location)
        location.child(MANIFEST_NAME).remove()
        train(manifest.config, Location.of(manifest.features), runs, workers)
        return
    if isinstance(manifest, FeaturizeManifest):
        if manifest.aligned is None:
            raise PipelineError(f"{location} was imported; import it again with --force")
        logger.info("aligning again into %s", location)
        config = AlignConfig.model_validate(manifest.aligned.config)
        features = Location.of(manifest.aligned.features)
        result = align(config, features, runs, workers, force=True)
    else:
        assert isinstance(manifest, EvaluateManifest)
        logger.info("evaluating again into %s", location)
        models = [Location.of(model) for model in manifest.models]
        result = evaluate(manifest.config, models, Location.of(manifest.features), runs, force=True)
    if result.location != location:
        raise PipelineError(
            f"models or features are not those that {location} was made from; the result of what "
            f"is there now stands at {result.location}"
        )


def _read_any_manifest(location: Location) -> StageManifest:
    """The manifest at a location, as its own stage's type."""
    file = location.child(MANIFEST_NAME)
    if not file.exists():
        raise PipelineError("it is missing")
    content = read_manifest_bytes(file)
    try:
        stage = json.loads(content)["stage"]
        manifest_type = MANIFEST_TYPES[stage]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise PipelineError(f"{file} is damaged: it names no stage") from error
    return read_manifest(location, manifest_type)


def _restore_manifest(location: Location) -> None:
    copy = location.child(MANIFEST_COPY_NAME)
    problem = "there is no copy"
    if copy.exists():
        content = read_manifest_bytes(copy)
        for manifest_type in MANIFEST_TYPES.values():
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


def _vouched(manifest: StageManifest) -> dict[str, FileChecksum]:
    return dict(manifest.checksums) or manifest.known_checksums()


def _copy_damage(location: Location, manifest: StageManifest) -> Iterator[Damage]:
    copy = location.child(MANIFEST_COPY_NAME)
    if not manifest.manifest_sha256:
        return  # of an earlier version, which wrote none
    if not copy.exists():
        yield Damage(MANIFEST_COPY_NAME, "it is missing")
    elif copy.read_bytes() != location.child(MANIFEST_NAME).read_bytes():
        yield Damage(MANIFEST_COPY_NAME, "it differs from the manifest")


def _unusable(location: Location, manifest: StageManifest) -> Iterator[Damage]:
    """Whether what has the right checksums can also be used."""
    if isinstance(manifest, FeaturizeManifest):
        yield from inspect_features(location, manifest)
        return
    try:
        if isinstance(manifest, TrainManifest):
            load_recogniser(location)
        else:
            read_metrics(location)
    except PipelineError as error:
        yield Damage(MANIFEST_NAME, str(error))
