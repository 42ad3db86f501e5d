"""Field descriptions are the form that a person fills: each is a sentence that helps."""

import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from featurize.import_kaldi_config import KaldiImportConfig
from featurize.stage import FanOut
from flows.recipes import Recipe


def held_models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Models that a field of this type holds, inside sequences and choices too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (tuple, Union, types.UnionType):
        for argument in get_args(annotation):
            yield from held_models(argument)


def form_models(*roots: type[BaseModel]) -> list[type[BaseModel]]:
    """These models and all that their fields hold."""
    found: dict[type[BaseModel], None] = {}
    waiting = list(roots)
    while waiting:
        model = waiting.pop()
        if model not in found:
            found[model] = None
            for field in model.model_fields.values():
                waiting += held_models(field.annotation)
    return list(found)


FIELDS = [
    pytest.param(field.description or "", id=f"{model.__name__}.{name}")
    for model in form_models(Recipe, KaldiImportConfig, FanOut)
    for name, field in model.model_fields.items()
]


def test_the_forms_have_all_their_fields() -> None:
    assert len(FIELDS) > 120


@pytest.mark.parametrize("description", FIELDS)
def test_a_description_is_a_sentence_that_helps(description: str) -> None:
    assert len(description.split()) >= 4, description
    assert description[0].isupper() or description.startswith("'")
    assert description.endswith(".")
