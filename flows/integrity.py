"""Verifying finished stages end to end, and redoing what is broken in them."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pydantic import ValidationError

from evaluation.evaluate import evaluate
from evaluation.graph.store import GraphManifest, read_graph
from evaluation.manifest import EvaluateManifest
from featurize.repair import inspect_features, redo_features
from featurize.schema import IMPORT_STAGE, INDEX_NAME, FeaturizeManifest
from featurize.stage import (
    MANIFEST_NAME,
    Damage,
    Location,
    PipelineError,
    SealedResult,
    StageManifest,
    held_lease,
)
from featurize.utterance_index import index_shard, write_index
from flows.comparison import read_metrics
from training.align.align import align
from training.align.align_config import AlignConfig
from training.manifest import TrainManifest
from training.repair import features_of, redo_training
from training.train import train
from training.trained_model import load_model
from training.worker_config import WorkerConfig

logger = logging.getLogger(__name__)

MANIFEST_TYPES: dict[str, type[StageManifest]] = {
    "featurize": FeaturizeManifest,
    "align": FeaturizeManifest,
    IMPORT_STAGE: FeaturizeManifest,
    "training": TrainManifest,
    "evaluation": EvaluateManifest,
    "graph": GraphManifest,
}


@dataclass(frozen=True)
class Inspection:
    """What was found at one location."""

    location: Location
    stage: str  # which stage's result it is; empty where nothing tells
    damage: tuple[Damage, ...]  # files that are not what they should be
    leftovers: tuple[str, ...]  # files that the manifest does not list
    num_files: int  # files compared with a checksum
    is_finished: bool  # whether a result was declared; an unfinished one is continued by its stage

    @property
    def is_sound(self) -> bool:
        """Whether every file is there and whole, and the manifest lists it."""
        return not self.damage and not self.leftovers


def stage_locations(root: Location) -> list[Location]:
    """A stage's location itself, or every stage's location below a runs folder."""
    if SealedResult(root, MANIFEST_TYPES).is_declared:
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
    result = SealedResult(location, MANIFEST_TYPES)
    if not result.is_declared:
        return Inspection(location, location.parent.name, (), (), 0, is_finished=False)
    try:
        manifest = result.manifest()
    except PipelineError as error:
        return Inspection(
            location, location.parent.name, (Damage(MANIFEST_NAME, str(error)),), (), 0, True
        )
    damage = list(result.damage(manifest)) or list(_unusable(location, manifest))
    return Inspection(
        location=location,
        stage=manifest.stage,
        damage=tuple(damage),
        leftovers=tuple(result.leftovers(manifest)),
        num_files=result.num_files(manifest),
        is_finished=True,
    )


def repair(
    location: Location, workers: WorkerConfig, corpus: Location | None = None
) -> tuple[Inspection, Inspection]:
    """Redo what is broken at one location, and nothing else.

    Args:
        workers: where to train, should that be needed.
        corpus: where the corpus stands now; where it stood then if None.

    Returns:
        What was found before and after.
    """
    before = inspect(location)
    if before.is_sound or not before.is_finished:
        return before, before
    result = SealedResult(location, MANIFEST_TYPES)
    with held_lease(location):
        if any(damage.file == MANIFEST_NAME for damage in before.damage):
            result.restore_manifest()
            restored = inspect(location)
            before = replace(restored, damage=(*before.damage, *restored.damage))
        manifest = result.manifest()
        for name in before.leftovers:
            logger.info("removing %s: the manifest does not list it", location.child(name))
            location.child(name).remove()
        location.remove_partial()
        files = result.restore_copy(manifest, {damage.file for damage in before.damage})
        is_mended = not files or _redo(result, manifest, files, corpus)
    if not is_mended:
        _run_again(location, manifest, workers)
    return before, inspect(location)


def _redo(
    result: SealedResult, manifest: StageManifest, files: set[str], corpus: Location | None
) -> bool:
    """Redo files under the lease; False where the whole stage has to run."""
    location = result.location
    if isinstance(manifest, FeaturizeManifest):
        features, others = manifest, files - {INDEX_NAME}
        if others and manifest.stage != "featurize":
            return False
        if others:
            features = redo_features(location, manifest, others, corpus)
        if INDEX_NAME in files:
            write_index(location, (index_shard(location, shard) for shard in features.shards))
        changed: StageManifest = features
    elif isinstance(manifest, TrainManifest):
        if not redo_training(location, manifest, files):
            return False
        changed = manifest
    else:
        return False
    result.seal_again(changed, files)
    return True


def _run_again(location: Location, manifest: StageManifest, workers: WorkerConfig) -> None:
    runs = location.parent.parent
    if isinstance(manifest, TrainManifest):
        features_of(location, manifest)  # another result would not come to stand here
        logger.warning("%s has to be trained again, from its newest whole checkpoint", location)
        location.child(MANIFEST_NAME).remove()
        train(manifest.config, Location.of(manifest.features), runs, workers)
        return
    if isinstance(manifest, GraphManifest):
        raise PipelineError(
            f"{location} is a search graph, which evaluations make: remove it, and repair or force "
            "an evaluation that uses it"
        )
    if isinstance(manifest, FeaturizeManifest):
        if manifest.aligned is None:
            raise PipelineError(f"{location} was imported; import it again with --force")
        logger.info("aligning again into %s", location)
        try:
            config = AlignConfig.model_validate(manifest.aligned.config)
        except ValidationError as error:
            raise PipelineError(
                f"{location} was aligned by an earlier version; remove it and align again"
            ) from error
        features = Location.of(manifest.aligned.features)
        result = align(config, features, runs, force=True)
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


def _unusable(location: Location, manifest: StageManifest) -> Iterator[Damage]:
    """Whether what has the right checksums can also be used."""
    if isinstance(manifest, FeaturizeManifest):
        yield from inspect_features(location, manifest)
        return
    try:
        if isinstance(manifest, TrainManifest):
            load_model(location)
        elif isinstance(manifest, GraphManifest):
            read_graph(location)
        else:
            read_metrics(location)
    except PipelineError as error:
        yield Damage(MANIFEST_NAME, str(error))
