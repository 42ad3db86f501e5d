"""Redoing single files of a finished training run."""

import logging
from collections.abc import Collection

from featurize.schema import FeaturizeManifest
from featurize.stage import Location, PipelineError, read_manifest
from training.checkpoint import CheckpointStore, save_tensors
from training.manifest import CHECKPOINTS_NAME, METRICS_NAME, TrainManifest
from training.train import (
    STATISTICS_NAME,
    WEIGHTS_NAME,
    training_fingerprint,
    write_label_statistics,
    write_metrics,
)

logger = logging.getLogger(__name__)


def redo_training(run: Location, manifest: TrainManifest, files: Collection[str]) -> bool:
    """Make some files of a finished run again, without training where that is possible.

    Weights come from the best epoch's checkpoint, label statistics from the features, the table
    of epochs from the manifest. A damaged checkpoint is dropped: the finished run needs none.

    Args:
        run: the run; the caller holds its lease.

    Returns:
        False when weights and their checkpoint are both lost, and only training helps.
    """
    store = CheckpointStore(run)
    for file in files:
        if file.startswith(f"{CHECKPOINTS_NAME}/"):
            checkpoint = run.child(*file.split("/")[:2])
            logger.warning("dropping %s: damaged, and not needed by a finished run", checkpoint)
            checkpoint.remove()
    if METRICS_NAME in files:
        write_metrics(run, manifest.metrics)
    if STATISTICS_NAME in files:
        features = Location.of(manifest.features)
        write_label_statistics(run, features, features_of(run, manifest))
    if WEIGHTS_NAME in files:
        try:
            weights = store.weights_of(manifest.best_epoch)
        except PipelineError as error:
            logger.warning("the weights cannot be taken from a checkpoint: %s", error)
            return False
        return save_tensors(run.child(WEIGHTS_NAME), weights) == manifest.weights_sha256
    return True


def features_of(run: Location, manifest: TrainManifest) -> FeaturizeManifest:
    """The manifest of the features a run was trained on."""
    features = read_manifest(Location.of(manifest.features), FeaturizeManifest)
    if training_fingerprint(manifest.config, features) != manifest.fingerprint:
        raise PipelineError(
            f"{manifest.features} does not hold the features that {run} was trained on (or the "
            "software is of another version); featurize and train again"
        )
    return features
