"""``--set key=value``: a changed copy of a recipe, validated where each field is defined.

Keys are dotted paths. ``train.x`` changes every model's training, ``train.gru.x`` that of one
model, ``models=v2,gru`` chooses the models; ``featurize.x``, ``evaluate.x``, ``synthetic.x`` and
``workers.x`` are the recipe's own fields. A value is JSON where it parses as JSON, else text;
a list may also be written with commas.
"""

import json
import types
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from featurize.stage import PipelineError
from flows.failures import condense
from flows.recipes import Recipe
from flows.suggestions import did_you_mean
from training.models.registry import known_models
from training.train_config import TrainConfig

ModelT = TypeVar("ModelT", bound=BaseModel)

_FIXED_FIELDS = frozenset({"name", "explanation", "deviations", "models"})


def apply_overrides(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """A copy of the recipe with the assignments applied, in order.

    ``models=`` is applied first, wherever it stands.

    Raises:
        PipelineError: for a malformed assignment, an unknown key (naming close ones) or a value
            its field refuses.

    Example:
        >>> from flows.recipes import recipe_named
        >>> assignments = ["models=v2", "train.v2.model.threshold=5", "featurize.num_bins=24"]
        >>> recipe = apply_overrides(recipe_named("demo"), assignments)
        >>> recipe.models[0].model.threshold, recipe.featurize.num_bins
        (5, 24)
    """
    pairs = [_split(assignment) for assignment in assignments]
    for key, text in sorted(pairs, key=lambda pair: pair[0] != "models"):
        recipe = _select_models(recipe, text) if key == "models" else _assign(recipe, key, text)
    return recipe


def configured(config: ModelT, assignments: Sequence[str]) -> ModelT:
    """A copy of any configuration with the assignments applied, in order.

    Raises:
        PipelineError: as :func:`apply_overrides` does.
    """
    known = list(_all_keys(type(config)))
    for assignment in assignments:
        key, text = _split(assignment)
        if key not in known:
            raise PipelineError(f"--set {key}: no such key{did_you_mean(key, known)}")
        config = _set_text(config, tuple(key.split(".")), text, key)
    return config


def known_keys(recipe: Recipe) -> list[str]:
    """Every key that ``--set`` takes for this recipe, save the per-model ones."""
    own = [
        key
        for key in _leaf_keys(Recipe)
        # The aligning network has every key of train; whoever mistypes one means train's.
        if key.split(".")[0] not in _FIXED_FIELDS and not key.startswith("align.network.")
    ]
    return ["models", *own, *(f"train.{key}" for key in _leaf_keys(TrainConfig))]


def _split(assignment: str) -> tuple[str, str]:
    key, separator, value = assignment.partition("=")
    if not separator or not key.strip():
        raise PipelineError(f"--set {assignment!r}: write key=value")
    return key.strip(), value.strip()


def _select_models(recipe: Recipe, text: str) -> Recipe:
    names = [name.strip() for name in text.strip("[]").replace('"', "").split(",") if name.strip()]
    if not names:
        known = ", ".join(known_models())
        raise PipelineError(f"--set models={text}: name at least one of {known}")
    trainings = []
    for name in names:
        own = [config for config in recipe.models if config.model.model == name]
        template = own[0] if own else recipe.models[0]
        try:
            model = template.model.for_model(name)
        except PipelineError as error:
            meant = did_you_mean(name, known_models())
            raise PipelineError(f"--set models={text}: {error}{meant}") from error
        except ValidationError as error:
            raise PipelineError(f"--set models={text}: {condense(error)}") from error
        trainings.append(_validated(template, ("model",), model.model_dump(), f"models={text}"))
    return _validated(recipe, ("models",), trainings, f"models={text}")


def _assign(recipe: Recipe, key: str, text: str) -> Recipe:
    parts = tuple(key.split("."))
    if parts[0] == "train":
        chosen = recipe.models
        named = [c for c in chosen if len(parts) > 2 and parts[1] in (c.model.model, _short(c))]
        if named:
            chosen, parts = tuple(named), (parts[0], *parts[2:])
        elif len(parts) > 2 and parts[1] in known_models():
            trained = ", ".join(recipe.model_names)
            raise PipelineError(f"--set {key}: this run trains {trained}, not {parts[1]}")
        # A setting of one model's own changes those that have it.
        having = [config for config in chosen if ".".join(parts[1:]) in _keys_of(config)]
        if not having:
            _require_known(recipe, TrainConfig, parts[1:], key)
        trainings = [
            _set_text(config, parts[1:], text, key) if config in having else config
            for config in recipe.models
        ]
        return _validated(recipe, ("models",), trainings, f"{key}={text}")
    if parts[0] in _FIXED_FIELDS:
        raise PipelineError(f"--set {key}: not a setting{did_you_mean(key, known_keys(recipe))}")
    _require_known(recipe, Recipe, parts, key)
    return _set_text(recipe, parts, text, key)


def _short(config: TrainConfig) -> str:
    return config.model.spec.name


def _keys_of(config: TrainConfig) -> set[str]:
    """Dotted paths of a training's fields, those of its own model's configuration included."""
    own = {f"model.{key}" for key in _all_keys(type(config.model))}
    return own | {key for key in _all_keys(TrainConfig) if not key.startswith("model.")}


def _require_known(
    recipe: Recipe, model: type[BaseModel], parts: tuple[str, ...], key: str
) -> None:
    path = ".".join(parts)
    if path not in set(_all_keys(model)):
        raise PipelineError(f"--set {key}: no such key{did_you_mean(key, known_keys(recipe))}")


def _set_text(model: ModelT, parts: tuple[str, ...], text: str, key: str) -> ModelT:
    """Try the readings of a text in turn; the first reading's error is the one to report."""
    first_error: PipelineError | None = None
    for value in _readings(text):
        try:
            return _validated(model, parts, value, f"{key}={text}")
        except PipelineError as error:
            first_error = first_error or error
    assert first_error is not None
    raise first_error


def _readings(text: str) -> list[Any]:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        parsed = text
    readings = [parsed] if isinstance(parsed, str) else [parsed, text]
    if "," in text:
        readings.append([part.strip() for part in text.split(",")])
    elif not isinstance(parsed, list | dict):
        readings += [[parsed], [text]]
    return readings


def _validated(model: ModelT, parts: tuple[str, ...], value: Any, shown: str) -> ModelT:
    content = model.model_dump()
    target = content
    for part in parts[:-1]:
        if target.get(part) is None:
            target[part] = {}
        target = target[part]
    target[parts[-1]] = (
        [v.model_dump() if isinstance(v, BaseModel) else v for v in value]
        if isinstance(value, list)
        else value
    )
    try:
        return type(model).model_validate(content)
    except ValidationError as error:
        raise PipelineError(f"--set {shown}: {condense(error)}") from error


def _nested_models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Models that a field of this type may hold directly (not inside a sequence)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType):
        for argument in get_args(annotation):
            yield from _nested_models(argument)


def _all_keys(model: type[BaseModel]) -> Iterator[str]:
    """Dotted paths of all fields, inner ones included."""
    for name, field in model.model_fields.items():
        yield name
        for nested in _nested_models(field.annotation):
            yield from (f"{name}.{key}" for key in _all_keys(nested))


def _leaf_keys(model: type[BaseModel]) -> list[str]:
    keys = list(_all_keys(model))
    return [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
