"""Things found by name: built in, of an installed package, or of a module that is named.

An entry is found by one of

- its name, where it is built in;
- its name, where an installed package declares it as an entry point of the registry's group;
- ``module:attribute``, where the module can be imported (of a file, put its folder on PYTHONPATH).

Nothing is imported before it is asked for.
"""

import importlib
import importlib.metadata
import sys
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from featurize.stage.errors import PipelineError

T = TypeVar("T")


def attribute_at(address: str) -> Any:
    """What stands at ``module:attribute``."""
    module_name, _, attribute = address.partition(":")
    if module_name.split(".")[0] in sys.stdlib_module_names:
        # A configuration may come from anyone, and importing some of these does things.
        raise PipelineError(f"{address}: {module_name} is of Python itself; name a module of yours")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise PipelineError(
            f"{address}: cannot import {module_name} ({error}); install it, or put the folder of "
            "its file on PYTHONPATH"
        ) from error
    except Exception as error:  # of a person's own code
        raise PipelineError(
            f"{address}: importing {module_name} fails: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, attribute):
        raise PipelineError(f"{address}: {module_name} has no {attribute}")
    return getattr(module, attribute)


class Registry(Generic[T]):
    """Entries of one type, by name.

    A configuration's field is typed ``Annotated[str, AfterValidator(R.check), R]``.

    Args:
        noun: what one is called in a message, such as ``model``.
        group: the entry points that name further ones.
        built_in: name to ``module:attribute``, in the order in which forms list them.
    """

    def __init__(self, kind: type[T], noun: str, group: str, built_in: Mapping[str, str]) -> None:
        self.kind, self.noun, self.group, self.built_in = kind, noun, group, built_in
        self._found: dict[str, T] = {}

    @cached_property
    def installed(self) -> dict[str, str]:
        """Name to address of what installed packages declare."""
        found = importlib.metadata.entry_points(group=self.group)
        return {point.name: point.value for point in found if point.name not in self.built_in}

    def known(self) -> tuple[str, ...]:
        """Names that are built in or installed."""
        return (*self.built_in, *sorted(self.installed))

    def named(self, name: str) -> T:
        """The entry of a name."""
        if name not in self._found:
            self._found[name] = self._load(name)
        return self._found[name]

    def check(self, name: str) -> str:
        """A name, checked; a built-in one without importing anything."""
        if name not in self.built_in:
            self.named(name)
        return name

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Forms offer the names that are known where the form is made."""
        return handler(core_schema) | {"enum": list(self.known())}

    def _load(self, name: str) -> T:
        address = self.built_in.get(name) or (name if ":" in name else self.installed.get(name))
        if address is None:
            raise PipelineError(
                f"no {self.noun} {name!r}; {self.noun}s: {', '.join(self.known())}, those of "
                f"installed packages (entry points {self.group}), or module:attribute for one of "
                "your own"
            )
        entry = attribute_at(address)
        if not isinstance(entry, self.kind):
            found, wanted = type(entry).__name__, self.kind.__name__
            raise PipelineError(f"{address} is a {found}, not a {wanted}")
        return entry
