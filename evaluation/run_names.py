"""What the runs of one evaluation are called: by their kind, and by what sets them apart."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from featurize.stage import PipelineError
from training.manifest import TrainManifest
from training.train_config import TrainConfig

_SEED = "seed"


class RunName(NamedTuple):
    """What a run is called."""

    label: str  # unique in the evaluation
    setting: str  # the same for runs that differ in their seed alone


def name_runs(models: Sequence[TrainManifest]) -> tuple[RunName, ...]:
    """Name every run: ``v2``; where a kind comes twice ``v2-threshold=5`` by what differs.

    Seeds come last, ``v2-seed=1``. Settings that no single value of their configurations tells
    apart (another feature set, another curriculum) are told apart by a fingerprint.
    """
    fingerprints = [model.fingerprint for model in models]
    if len(set(fingerprints)) != len(fingerprints):
        raise PipelineError("a training run is given twice; name each model once")
    identities = [_identity(model) for model in models]
    described = [_description(model, models) for model in models]
    settings = []
    for description, identity in zip(described, identities, strict=True):
        alike = {i for d, i in zip(described, identities, strict=True) if d == description}
        first = models[identities.index(identity)]
        settings.append(f"{description}-{first.fingerprint[:6]}" if len(alike) > 1 else description)
    labels = [
        f"{setting}-{_SEED}={model.config.seed}" if settings.count(setting) > 1 else setting
        for setting, model in zip(settings, models, strict=True)
    ]
    # The same seed twice: trained by two versions of the stage.
    unique = [
        f"{label}-{model.fingerprint[:6]}" if labels.count(label) > 1 else label
        for label, model in zip(labels, models, strict=True)
    ]
    return tuple(map(RunName, unique, settings))


def _identity(model: TrainManifest) -> str:
    """All that the runs of one setting share: the configuration but the seed, and the features."""
    content = {k: v for k, v in model.config.determining().items() if k != _SEED}
    return json.dumps([content, model.upstream], sort_keys=True)


def _description(model: TrainManifest, models: Sequence[TrainManifest]) -> str:
    """The kind, with the values (save the seed) in which its runs differ."""
    kind = model.config.model.spec.name
    own = _values(model.config)
    others = [_values(other.config) for other in models if other.config.model.spec.name == kind]
    keys = [key for key in own if any(other.get(key) != own[key] for other in others)]
    return "-".join([kind, *(f"{key.removeprefix('model.')}={own[key]}" for key in keys)])


def _values(config: TrainConfig) -> dict[str, Any]:
    """Single values by dotted path, the seed left out."""
    values = dict(_leaves(config.determining(), ""))
    del values[_SEED]
    return values


def _leaves(content: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{name}.")
        elif not isinstance(value, list):
            yield f"{path}{name}", value
