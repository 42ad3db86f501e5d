"""A recipe of one's own: a YAML file, read with the line of each mistake, or written to edit.

::

    based_on: mini-librispeech        # what is not said here is as there
    featurize:
      splits: {train: [train-clean-100], dev: [dev-clean], test: [test-clean]}
    models: [v2, gru]                 # names, or whole trainings
    train:                            # changes every training
      batch_size: 32

Mappings are merged into those of the recipe it is based on; lists and values take their place.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import yaml
from pydantic import ValidationError

from featurize.stage import Location, PipelineError, condense
from flows.recipe_config import Recipe, training_named
from flows.suggestions import did_you_mean

FILE_ENDINGS = (".yaml", ".yml")

_MAX_BYTES = 2**20
_MAX_DEPTH = 32
_BASE, _TRAIN = "based_on", "train"

_HEADER = """\
# The recipe {name}, to edit: spikeline pipeline --recipe FILE.yaml --corpus ROOT --runs runs
# A setting that does not stand here has its default. To change little of a recipe, a file needs
# only 'based_on: {name}' and the changes.
"""

_Path = tuple[str | int, ...]


class _Lines:
    """Where each key of a YAML document stands."""

    def __init__(self, root: yaml.Node) -> None:
        self._lines: dict[_Path, int] = {}
        self._seen: set[int] = set()
        self._add(root, ())

    def _add(self, node: yaml.Node, path: _Path) -> None:
        line = node.start_mark.line + 1
        self._lines.setdefault(path, line)
        if len(path) > _MAX_DEPTH:
            raise PipelineError(f"line {line}: nested too deeply")
        if id(node) in self._seen:
            raise PipelineError(f"line {line}: anchors and aliases are not taken; write it out")
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*path, str(key.value))
                if inner in self._lines:
                    raise PipelineError(
                        f"line {key.start_mark.line + 1}: {key.value} a second time"
                    )
                self._lines[inner] = key.start_mark.line + 1
                self._add(value, inner)
        elif isinstance(node, yaml.SequenceNode):
            for number, value in enumerate(node.value):
                self._add(value, (*path, number))

    def of(self, location: Sequence[str | int]) -> int:
        """The line of the innermost key on the way to a place that the file has.

        Parts that it lacks, such as the name of the kind of a setting, are passed over.
        """
        path: _Path = ()
        for part in location:
            if (*path, part) in self._lines:
                path = (*path, part)
        return self._lines[path]

    def named(self, message: str) -> int | None:
        """The line of the first key that a message is about."""
        words = {word.partition("=")[0].strip(",.:;'\"") for word in message.split()}
        words |= {word.rsplit(".", 1)[-1] for word in words}
        return next((n for path, n in self._lines.items() if path and path[-1] in words), None)


def read_recipe(file: Location, recipes: Mapping[str, Recipe]) -> Recipe:
    """The recipe that a file states.

    Args:
        file: YAML.
        recipes: those that it may be based on.
    """
    content, lines = _parsed(file)
    base_name = content.pop(_BASE, None)
    if base_name is not None and str(base_name) not in recipes:
        meant = did_you_mean(str(base_name), recipes)
        raise PipelineError(
            f"{file}, line {lines.of([_BASE])}: no recipe {str(base_name)[:60]!r}{meant}; "
            f"recipes: {', '.join(recipes)}"
        )
    base = None if base_name is None else recipes[str(base_name)]
    try:
        merged = _merged_with(base, content, file.name.rsplit(".", 1)[0])
        return Recipe.model_validate(merged)
    except ValidationError as error:
        raise PipelineError(f"{file}, line {_line_of(error, lines)}: {condense(error)}") from error
    except PipelineError as error:
        raise PipelineError(f"{file}, line {lines.of(['models'])}: {error}") from error


def _parsed(file: Location) -> tuple[dict[str, Any], _Lines]:
    try:
        with file.open_read() as stream:
            text = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise PipelineError(f"{file}: {error.strerror or error}; check the path") from error
    if len(text) > _MAX_BYTES:
        raise PipelineError(f"{file} is too large to be a recipe")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise PipelineError("line 1: write settings, one 'name: value' a line")
        lines = _Lines(node)
        content = cast(dict[str, Any], loader.construct_document(node))
    except PipelineError as error:
        raise PipelineError(f"{file}, {error}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise PipelineError(f"{file}{where}: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise PipelineError(f"{file} is not YAML: {' '.join(str(error).split())[:200]}") from error
    return content, lines


def _merged_with(base: Recipe | None, content: dict[str, Any], name: str) -> dict[str, Any]:
    models, train = content.pop("models", None), content.pop(_TRAIN, None)
    start = {} if base is None else base.model_dump(mode="json")
    merged: dict[str, Any] = _merged(start | {"name": name}, content)
    if models is not None:
        merged["models"] = models
        if isinstance(models, list):
            merged["models"] = [_training(base, training) for training in models]
    if train is not None and isinstance(merged.get("models"), list):
        merged["models"] = [_merged(training, train) for training in merged["models"]]
    return merged


def _training(base: Recipe | None, training: Any) -> Any:
    if not isinstance(training, str):
        return training
    if base is None:
        raise PipelineError(
            f"models: {training!r} alone says nothing of its training; add based_on, or write "
            "the training out"
        )
    try:
        named = training_named(base, training)
    except ValidationError as error:
        raise PipelineError(f"models: {training}: {condense(error)}") from error
    return named.model_dump(mode="json")


def _merged(base: Any, changes: Any) -> Any:
    """Mappings merged key by key; of anything else the change itself."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return base | {key: _merged(base.get(key), value) for key, value in changes.items()}


def _line_of(error: ValidationError, lines: _Lines) -> int:
    """The line of the first error: of its place, or of a key that it names where it has none."""
    first = error.errors(include_url=False)[0]
    location = [part for part in first["loc"] if isinstance(part, str | int)]
    line = lines.of(location)
    if location[:1] == ["models"]:  # which the settings under train became part of
        line = max(line, lines.of([_TRAIN, *location[2:]]))
    return line if line > lines.of([]) else lines.named(first["msg"]) or line


def recipe_text(recipe: Recipe) -> str:
    """A recipe as a file to edit, every section with what it is about."""
    content = recipe.model_dump(mode="json", exclude_defaults=True)
    for training, config in zip(content["models"], recipe.models, strict=True):
        training["model"] = {"model": config.model.model} | training.get("model", {})
    sections = [_HEADER.format(name=recipe.name)]
    for key, value in content.items():
        about = Recipe.model_fields[key].description or ""
        body = yaml.safe_dump({key: value}, sort_keys=False, width=96, allow_unicode=True)
        sections.append(f"\n# {about}\n{body}")
    return "".join(sections)
