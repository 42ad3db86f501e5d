"""The base of every configuration object: frozen, closed and typed."""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

VerifyMode = Literal["off", "sampled", "full"]
"""How much is read before use: nothing, sizes and a sample of the files, or every byte."""

_UNITS = {"s": "(s)", "hz": "(Hz)", "dbfs": "(dBFS)"}


def _field_title(name: str, _field: Any) -> str:
    """``frame_shift_s`` as a person reads it, Frame shift (s); ``num_layers``, Number of layers."""
    *words, last = name.replace("num_", "number_of_", 1).split("_")
    text = " ".join([*words, _UNITS.get(last, last) if words else last])
    return text[:1].upper() + text[1:]


def _model_title(model: type[Any]) -> str:
    """``SpecAugmentConfig`` as a person reads it: Spec augment."""
    words = re.findall(r"[A-Z][a-z0-9]*", model.__name__.removesuffix("Config"))
    return " ".join(words).capitalize() or model.__name__


class TypedConfig(BaseModel):
    """A frozen configuration that refuses fields it does not know.

    Every field carries a description. Titles and descriptions become the form in the Prefect UI.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        field_title_generator=_field_title,
        model_title_generator=_model_title,
    )
