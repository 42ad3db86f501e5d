"""``--set key=value``: a changed copy of a recipe, validated where each field is defined.

Keys are dotted paths. ``train.x`` changes every model's training, ``train.gru.x`` that of one
model, ``models=v2,gru`` chooses the models; ``featurize.x``, ``evaluate.x``, ``synthetic.x`` and
``workers.x`` are the recipe's own fields. A value is JSON where it parses as JSON, else text;
a list may also be written with commas.

All assignments are applied before the result is validated as a whole, so that settings which are
valid only together may stand in any order. The forms of the Prefect UI take the same assignments.
"""

import json
import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from featurize.stage import PipelineError, condense
from flows.recipe_config import Recipe, training_named
from flows.suggestions import did_you_mean
from training.models.model_config import ModelConfig
from training.models.registry import known_models, model_named
from training.train_config import TrainConfig

ModelT = TypeVar("ModelT", bound=BaseModel)

COMMAND_LINE = "--set "
"""What stands before an assignment in a message on the command line."""

_STAGE_OF = {
    **{stage: stage for stage in ("featurize", "align", "train", "evaluate")},
    **dict.fromkeys(("models", "seeds", "seeded_models", "sweep"), "train"),
}
"""The one stage that a setting belongs to; those of where and how the work is done have none."""
_LABELS = "featurize.labels"
"""What a recipe's alignment and trainings are checked against, also where they run alone."""
_SEARCH_SETTINGS = ("evaluate.viterbi", "evaluate.words", "evaluate.decoder")
_FIXED_FIELDS = frozenset({"name", "explanation", "deviations", "models"})


def apply_overrides(
    recipe: Recipe, assignments: Sequence[str], source: str = COMMAND_LINE
) -> Recipe:
    """A copy of the recipe with the assignments applied, the later over the earlier.

    ``models=`` is applied first, wherever it stands.

    Args:
        assignments: ``key=value`` each.
        source: what a message begins with, before the assignment.

    Example:
        >>> from flows.recipes import recipe_named
        >>> assignments = ["models=v2", "train.v2.model.threshold=5", "featurize.num_bins=24"]
        >>> recipe = apply_overrides(recipe_named("demo"), assignments)
        >>> recipe.models[0].model.threshold, recipe.featurize.num_bins
        (5, 24)
    """
    pairs = [_split(assignment, source) for assignment in assignments]
    content = recipe.model_dump()
    for key, text in sorted(pairs, key=lambda pair: pair[0] != "models"):
        if key == "models":
            _select_models(content, recipe, text, source)
        else:
            _assign(recipe, content, (key, text), source)
    return _validated(Recipe, content, pairs, source)


def check_stage(stage: str, assignments: Sequence[str], source: str = COMMAND_LINE) -> None:
    """Refuse the settings of other stages where one is run alone, which would have no effect."""
    for assignment in assignments:
        key, _ = _split(assignment, source)
        owner = _STAGE_OF.get(key.split(".")[0], stage)
        if owner != stage and key != _LABELS:
            raise PipelineError(
                f"{source}{key}: a setting of {owner}, whose result {stage} takes as it is, or "
                f"does without; leave this out, or run {owner} with it"
            )


def check_search_settings(
    search_of: str | None, assignments: Sequence[str], source: str = COMMAND_LINE
) -> None:
    """Refuse settings of a search where an earlier one is taken as it is."""
    idle = [text for text in assignments if text.startswith(_SEARCH_SETTINGS)]
    if search_of is not None and idle:
        raise PipelineError(
            f"{source}{idle[0]}: the search is that of {search_of}, with its own settings; leave "
            "this out, or choose a search anew: without evaluate.search_of, on features with a dev "
            "split"
        )


def configured(config: ModelT, assignments: Sequence[str]) -> ModelT:
    """A copy of any configuration with the assignments applied."""
    known = list(_all_keys(type(config)))
    pairs = [_split(assignment, COMMAND_LINE) for assignment in assignments]
    content = config.model_dump()
    for key, text in pairs:
        if key not in known:
            raise PipelineError(f"{COMMAND_LINE}{key}: no such key{did_you_mean(key, known)}")
        path = tuple(key.split("."))
        _set(content, path, _value(type(config), path, f"{COMMAND_LINE}{key}", text))
    return _validated(type(config), content, pairs, COMMAND_LINE)


def known_keys(recipe: Recipe) -> list[str]:
    """Every key that ``--set`` takes for this recipe, save the per-model ones."""
    own = [key for key in _leaf_keys(type(recipe)) if key.split(".")[0] not in _FIXED_FIELDS]
    return ["models", *own, *(f"train.{key}" for key in _leaf_keys(TrainConfig))]


def _split(assignment: str, source: str) -> tuple[str, str]:
    key, separator, value = assignment.partition("=")
    if not separator or not key.strip():
        raise PipelineError(f"{source}{assignment!r}: write key=value")
    return key.strip(), value.strip()


def _select_models(content: dict[str, Any], recipe: Recipe, text: str, source: str) -> None:
    names = [name.strip() for name in text.strip("[]").replace('"', "").split(",") if name.strip()]
    if not names:
        known = ", ".join(known_models())
        raise PipelineError(f"{source}models={text}: name at least one of {known}")
    trainings = []
    for name in names:
        try:
            trainings.append(training_named(recipe, name).model_dump())
        except PipelineError as error:
            meant = did_you_mean(name, known_models())
            raise PipelineError(f"{source}models={text}: {error}{meant}") from error
        except ValidationError as error:
            raise PipelineError(f"{source}models={text}: {condense(error)}") from error
    content["models"] = trainings


def _assign(
    recipe: Recipe, content: dict[str, Any], assignment: tuple[str, str], source: str
) -> None:
    key, text = assignment
    path = tuple(key.split("."))
    if path[0] in _FIXED_FIELDS:
        near = did_you_mean(key, known_keys(recipe))
        raise PipelineError(f"{source}{key}: not a setting{near}")
    if path[0] == "train":
        _assign_to_trainings(recipe, content["models"], assignment, source)
        return
    _require_known(recipe, Recipe, path, (key, source))
    _set(content, path, _value(Recipe, path, source + key, text))


def _assign_to_trainings(
    recipe: Recipe, trainings: Sequence[dict[str, Any]], assignment: tuple[str, str], source: str
) -> None:
    key, text = assignment
    path = tuple(key.split("."))[1:]
    names = [training["model"]["model"] for training in trainings]
    chosen = list(zip(trainings, names, strict=True))
    if len(path) > 1:
        named = [pair for pair in chosen if path[0] in (pair[1], model_named(pair[1]).name)]
        if named:
            chosen, path = named, path[1:]
        elif path[0] in known_models():
            trained = ", ".join(names)
            raise PipelineError(f"{source}{key}: this run trains {trained}, not {path[0]}")
    # A setting of one model's own changes those that have it.
    having = [pair for pair in chosen if ".".join(path) in _keys_of(pair[1])]
    if not having:
        _require_known(recipe, TrainConfig, path, (key, source))
    for training, name in having:
        _set(training, path, _value(*_place(name, path), source + key, text))


def _config_of(name: str) -> type[BaseModel]:
    return model_named(name).config or ModelConfig


def _place(name: str, path: tuple[str, ...]) -> tuple[type[BaseModel], tuple[str, ...]]:
    """Where a training's field is declared: that of its model in the model's own class."""
    if len(path) > 1 and path[0] == "model":
        return _config_of(name), path[1:]
    return TrainConfig, path


def _keys_of(name: str) -> set[str]:
    """Dotted paths of a training's fields, those of its own model's configuration included."""
    own = {f"model.{key}" for key in _all_keys(_config_of(name))}
    return own | {key for key in _all_keys(TrainConfig) if not key.startswith("model.")}


def _require_known(
    recipe: Recipe, model: type[BaseModel], path: tuple[str, ...], shown: tuple[str, str]
) -> None:
    key, source = shown
    if ".".join(path) not in set(_all_keys(model)):
        raise PipelineError(f"{source}{key}: no such key{did_you_mean(key, known_keys(recipe))}")


def _set(content: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        if content.get(part) is None:
            content[part] = {}
        content = content[part]
    content[path[-1]] = value


def _value(model: type[BaseModel], path: tuple[str, ...], key: str, text: str) -> Any:
    """The reading of a text that its field takes by itself.

    The first reading's error is the one to report.
    """
    first_error: ValidationError | None = None
    for field in _fields(model, path):
        # In an annotation of its own a field keeps its bounds.
        bounded: Any = (
            Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        )
        adapter: TypeAdapter[Any] = TypeAdapter(bounded)
        for value in _readings(text):
            try:
                adapter.validate_python(value)
            except ValidationError as error:
                first_error = first_error or error
            else:
                return value
    assert first_error is not None
    raise PipelineError(f"{key}={text}: {condense(first_error)}") from first_error


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


def _validated(
    model: type[ModelT], content: dict[str, Any], pairs: Sequence[tuple[str, str]], source: str
) -> ModelT:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        said = condense(error)
        # Those that the message is about; all of them where it names none.
        about = [pair for pair in pairs if pair[0].rsplit(".", 1)[-1] in said] or pairs
        shown = " ".join(f"{key}={text}" for key, text in about)
        raise PipelineError(f"{source}{shown}: {said}") from error


def _nested_models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Models that a field of this type may hold directly (not inside a sequence)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType):
        for argument in get_args(annotation):
            yield from _nested_models(argument)


def _fields(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[FieldInfo]:
    """The fields at a dotted path; several where a part of it is a choice between models."""
    field = model.model_fields.get(path[0])
    if field is None:
        return
    if len(path) == 1:
        yield field
    for nested in _nested_models(field.annotation) if len(path) > 1 else ():
        yield from _fields(nested, path[1:])


def _all_keys(model: type[BaseModel]) -> Iterator[str]:
    """Dotted paths of all fields, inner ones included."""
    for name, field in model.model_fields.items():
        yield name
        for nested in _nested_models(field.annotation):
            yield from (f"{name}.{key}" for key in _all_keys(nested))


def _leaf_keys(model: type[BaseModel]) -> list[str]:
    keys = list(_all_keys(model))
    return [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
