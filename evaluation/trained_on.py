"""On what speech a model was trained, said where it meets other speech."""

import contextlib

from evaluation.claims import spoken_duration
from evaluation.published import published_engine
from featurize.copies import recorded_hours
from featurize.schema import FeaturizeManifest
from featurize.stage import Location, PipelineError, read_manifest
from training.manifest import TrainManifest

_CORPORA = {"librispeech": "LibriSpeech", "mls": "Multilingual LibriSpeech", "timit": "TIMIT"}


def trained_on(model: Location) -> str:
    """A sentence on a finished training's speech: kind, subsets, hours and speakers."""
    engine = published_engine(model)
    if engine is not None:
        return engine.description.trained_on
    manifest = read_manifest(model, TrainManifest)
    return speech_of(manifest) or (
        f"the {manifest.config.model.spec.title} was trained on {manifest.features}, which is not "
        "there any more"
    )


def speech_of(manifest: TrainManifest) -> str:
    """The same of a manifest; empty where its feature set is gone."""
    features = None
    with contextlib.suppress(PipelineError, OSError):
        features = read_manifest(Location.of(manifest.features), FeaturizeManifest)
    if features is None:
        return ""
    names = features.splits.get("train", ())
    subsets = [features.subsets[subset] for subset in names if subset in features.subsets]
    hours = recorded_hours([subset.hours for subset in subsets], features.config)
    speakers = sum(subset.num_speakers for subset in subsets)
    corpus = _CORPORA.get(str(features.config.get("corpus")))
    heard = f"{', '.join(names)} ({speakers} speakers)"
    return (
        f"the {manifest.config.model.spec.title} was trained on {spoken_duration(hours)} of "
        f"{f'{corpus}, ' if corpus else ''}{heard}; "
        "expect more errors on other speech, noise or microphones"
    )
