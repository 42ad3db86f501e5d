"""On what speech a model was trained, said where it meets other speech."""

import contextlib

from evaluation.claims import spoken_duration
from featurize.schema import FeaturizeManifest
from featurize.stage import Location, PipelineError, read_manifest
from training.manifest import TrainManifest


def trained_on(model: Location) -> str:
    """A sentence on a finished training's speech: kind, subsets, hours and speakers."""
    manifest = read_manifest(model, TrainManifest)
    name = manifest.config.model.spec.title
    features = None
    with contextlib.suppress(PipelineError, OSError):
        features = read_manifest(Location.of(manifest.features), FeaturizeManifest)
    if features is None:
        return f"the {name} was trained on {manifest.features}, which is not there any more"
    names = features.splits.get("train", ())
    subsets = [features.subsets[subset] for subset in names if subset in features.subsets]
    spoken = spoken_duration(sum(subset.hours for subset in subsets))
    speakers = sum(subset.num_speakers for subset in subsets)
    return (
        f"the {name} was trained on {spoken} of {', '.join(names)} ({speakers} speakers); "
        "expect more errors on other speech, noise or microphones"
    )
