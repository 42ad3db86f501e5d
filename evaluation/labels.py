"""What the runs of one evaluation are called: by their kind, and by what sets them apart."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from featurize.errors import PipelineError
from training.config import TrainConfig
from training.manifest import TrainManifest

_SEED = "seed"


class ModelName(NamedTuple):
    """What a run is called.

    Attributes:
        label: unique in the evaluation.
        setting: the same for runs that differ in their seed alone.
    """

    label: str
    setting: str


def name_models(models: Sequence[TrainManifest]) -> tuple[ModelName, ...]:
    """Name every run: ``v2``; where a kind comes twice ``v2-threshold=5`` by what differs.

    Seeds come last, ``v2-seed=1``. Runs that no single value of their configurations tells apart
    (another feature set, another curriculum) are told apart by their fingerprint.

    Raises:
        PipelineError: if one training run is given twice.
    """
    fingerprints = [model.fingerprint for model in models]
    if len(set(fingerprints)) != len(fingerprints):
        raise PipelineError("a training run is given twice; name each model once")
    settings = [_setting(model, models) for model in models]
    seeded = [
        f"{setting}-{_SEED}={model.config.seed}" if settings.count(setting) > 1 else setting
        for setting, model in zip(settings, models, strict=True)
    ]
    repeated = {label for label, count in Counter(seeded).items() if count > 1}
    names = []
    for label, setting, model in zip(seeded, settings, models, strict=True):
        if label in repeated:
            setting = label = f"{setting}-{model.fingerprint[:6]}"
        names.append(ModelName(label, setting))
    return tuple(names)


def _setting(model: TrainManifest, models: Sequence[TrainManifest]) -> str:
    """The kind, with the values (save the seed) in which its runs differ."""
    kind = model.config.model.model
    own = _values(model.config)
    others = [_values(other.config) for other in models if other.config.model.model == kind]
    keys = [key for key in own if any(other.get(key) != own[key] for other in others)]
    return "-".join([kind, *(f"{key.removeprefix('model.')}={own[key]}" for key in keys)])


def _values(config: TrainConfig) -> dict[str, Any]:
    """Single values by dotted path, the seed left out."""
    content = config.model_dump(mode="json", exclude_none=True, exclude={_SEED})
    return dict(_leaves(content, ""))


def _leaves(content: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{name}.")
        elif not isinstance(value, list):
            yield f"{path}{name}", value
