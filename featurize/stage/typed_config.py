"""The base of every configuration object: frozen, closed, typed, and naming what it determines."""

import re
from enum import Enum, auto
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


class InFingerprint(Enum):
    """Marks a field that is an exception to the rule of :meth:`TypedConfig.determining`.

    Written beside the field's type: ``backend: Annotated[Backend, InFingerprint.NEVER]``.
    """

    NEVER = auto()
    """The field says how a result is computed, or whether it is kept, not what it is."""
    EVEN_WHEN_OFF = auto()
    """The field has named results since before options that are off were left out."""


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

    def determining(self) -> dict[str, Any]:
        """The values that a result depends on, as JSON-able values, for its fingerprint.

        Every field, those of nested configurations included, except where it is off (None or an
        empty tuple), so that a new option does not rename every result, and except where
        :class:`InFingerprint` says otherwise.

        Example:
            >>> from typing import Annotated
            >>> class Window(TypedConfig):
            ...     length_s: float = 0.025
            ...     taper: str | None = None
            ...     num_threads: Annotated[int, InFingerprint.NEVER] = 1
            >>> Window(num_threads=8).determining()
            {'length_s': 0.025}
        """
        content = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            is_off = value is None or value == ()
            if InFingerprint.NEVER in field.metadata or (
                is_off and InFingerprint.EVEN_WHEN_OFF not in field.metadata
            ):
                del content[name]
            elif isinstance(value, TypedConfig):
                content[name] = value.determining()
            elif isinstance(value, tuple):
                content[name] = [
                    item.determining() if isinstance(item, TypedConfig) else plain
                    for item, plain in zip(value, content[name], strict=True)
                ]
        return content
