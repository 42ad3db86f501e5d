"""How every process of this project finds its modules: what is installed before what lies about.

A person's working folder may hold ``flows.py`` or ``training/``, and so may a folder of their
``PYTHONPATH``. Python looks there first, Ray has its workers look in the driver's working folder,
and so a stranger's file would be imported and executed in the name of this project. Here the
standard library and installed packages come first; whatever they lack (a model of one's own) is
still found where it was.

This module stands alone at the top, under a name that nobody else uses, because it has to be found
before any of that holds.
"""

import os
import runpy
import site
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

OUR_PACKAGES = frozenset({"featurize", "training", "evaluation", "flows", "infra", "spikeline"})
_ROOT = os.path.dirname(os.path.abspath(__file__))


def _installed_folders() -> list[str]:
    """Of this interpreter: the standard library, its extensions, packages."""
    library = os.path.dirname(os.__file__)
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return [library, os.path.join(library, "lib-dynload"), *site.getsitepackages(), *user]


class InstalledFirst:
    """A finder that goes before the path: our packages beside this file, others as installed."""

    def __init__(self) -> None:
        self._folders = _installed_folders()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where a top-level module is installed; None leaves it to the finders that follow."""
        if path is not None:
            return None
        folders = [_ROOT] if name in OUR_PACKAGES else self._folders
        spec = PathFinder.find_spec(name, folders, target)
        # A folder without __init__.py has no loader: it may have parts elsewhere.
        return spec if spec is not None and spec.loader is not None else None


def settle() -> None:
    """Have this process, and those that it starts, look first where packages are installed.

    Processes that Ray or Prefect start inherit the order through PYTHONPATH, where a person has
    set that. Harmless when repeated. Ray calls it in each of its workers, which get the driver's
    working folder in front of their path later: hence a finder beside the order of the path.
    """
    if not any(isinstance(finder, InstalledFirst) for finder in sys.meta_path):
        sys.meta_path.insert(0, InstalledFirst())
    first = [*dict.fromkeys([*_installed_folders(), _ROOT])]
    sys.path[:] = [*first, *(folder for folder in sys.path if folder not in first)]
    given = os.environ.get("PYTHONPATH")
    if given:
        theirs = [folder for folder in given.split(os.pathsep) if folder not in first]
        os.environ["PYTHONPATH"] = os.pathsep.join([*first, *theirs])


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs an installed module, whatever lies in the working folder."""
    return [sys.executable, os.path.abspath(__file__), module, *arguments]


def main() -> None:
    """The ``spikeline`` command."""
    settle()
    from flows.cli import main as command

    command()


if __name__ == "__main__":
    settle()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
