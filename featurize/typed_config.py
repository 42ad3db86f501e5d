"""The base of every configuration object: frozen, closed and typed."""

from pydantic import BaseModel, ConfigDict


class TypedConfig(BaseModel):
    """A frozen configuration that refuses fields it does not know.

    Every field carries a description: it becomes the form's help in the Prefect UI.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
