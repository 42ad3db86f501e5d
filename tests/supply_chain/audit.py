"""``python -m tests.supply_chain.audit``: whether the environment is the pinned tree, no more.

Works offline, from the metadata of what is installed and from ``constraints.txt``:

- every installed package is pinned for this Python, at the version that is installed;
- what packages require of one another is met;
- nothing was installed from a folder, an address or a repository, save this project;
- no pin names an address;
- nothing that the core needs is under the GPL.

With ``--online`` pip-audit also asks the advisory databases for known vulnerabilities.
"""

import argparse
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

_CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
# Of the environment, not of the tree.
# Of the long forms in License, the first words count: MIT texts may mention the GPL further on.
_GPL = re.compile(r"^.{0,60}?(?<!L)(?<!Lesser )(A?GPL|General Public License)(?! with)", re.DOTALL)
_UNPINNED = frozenset({"pip", "spikeline"})


def read_pins(constraints: str) -> dict[str, str]:
    """Name to version, of the pins that hold for the Python this runs in.

    Raises:
        ValueError: at a line that is no pin of an exact version, or at a second pin of a package.
    """
    pins: dict[str, str] = {}
    for number, line in enumerate(constraints.splitlines(), start=1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        try:
            pin = Requirement(text)
        except InvalidRequirement:
            pin = None
        exact = None if pin is None else _exact_version(pin)
        if pin is None or exact is None:
            raise ValueError(f"constraints.txt, line {number}: {text!r} is no name==version")
        if pin.marker is not None and not pin.marker.evaluate():
            continue
        name = canonicalize_name(pin.name)
        if name in pins:
            raise ValueError(f"constraints.txt, line {number}: {name} is pinned a second time")
        pins[name] = exact
    return pins


def _exact_version(pin: Requirement) -> str | None:
    """The version that the line ``name==version`` pins; None where it says anything else."""
    specifiers = list(pin.specifier)
    if pin.url or pin.extras or [item.operator for item in specifiers] != ["=="]:
        return None
    return None if specifiers[0].version.endswith(".*") else specifiers[0].version


def unpinned(pins: dict[str, str]) -> Iterator[str]:
    """Installed packages that differ from their pins, lack one, or came from elsewhere."""
    for distribution in importlib.metadata.distributions():
        name = canonicalize_name(distribution.metadata["Name"])
        if name in _UNPINNED:
            continue
        if name not in pins:
            yield f"{name} {distribution.version} is installed and not pinned"
        elif pins[name] != distribution.version:
            yield f"{name} {distribution.version} is installed, {pins[name]} is pinned"
        origin = json.loads(distribution.read_text("direct_url.json") or "{}").get("url")
        if origin is not None:
            yield f"{name} was not installed from a registry"


def unmet() -> Iterator[str]:
    """What ``pip check`` has to say."""
    check = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "check"],
        capture_output=True,
        text=True,
    )
    if check.returncode:
        yield from check.stdout.strip().splitlines()


def core_tree(root: str = "spikeline") -> set[str]:
    """What a package needs without its extras, and what that needs: canonical names."""
    found: set[str] = set()
    asked: set[tuple[str, str]] = set()
    waiting = [(root, "")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in asked:
            continue
        asked.add((name, extra))
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # another platform's; what is missing here says pip check
        found.add(name)
        for requirement in map(Requirement, requirements):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                needed = canonicalize_name(requirement.name)
                waiting += [(needed, one) for one in ("", *requirement.extras)]
    return found


def is_gpl(metadata: Mapping[str, list[str]]) -> bool:
    """Whether every licence that a package offers is the GPL or the AGPL.

    Args:
        metadata: values of License-Expression, License and Classifier.
    """
    expression = next(iter(metadata.get("License-Expression", [])), "")
    stated = [c for c in metadata.get("Classifier", []) if c.startswith("License :: ")]
    offered = expression.split(" OR ") if expression else stated or metadata.get("License", [])
    return bool(offered) and all(map(_GPL.search, offered))


def under_gpl() -> Iterator[str]:
    """Packages of the core under the GPL."""
    for name in sorted(core_tree()):
        message = importlib.metadata.metadata(name)
        fields = ("License-Expression", "License", "Classifier")
        if is_gpl({field: message.get_all(field) or [] for field in fields}):
            yield f"{name} is under the GPL, and the core needs it"


def _ask_advisories() -> int:
    tool = shutil.which("pip-audit")
    if tool is None:
        print("known vulnerabilities: not asked, pip-audit is not installed (make audit has it)")
        return 0
    command = [tool, "--requirement", str(_CONSTRAINTS), "--no-deps", "--disable-pip"]
    return subprocess.run(command).returncode


def main() -> None:
    """Audit, print every problem, and fail on any."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--online", action="store_true", help="ask for known vulnerabilities")
    options = parser.parse_args()
    pins = read_pins(_CONSTRAINTS.read_text())
    problems = [*unpinned(pins), *unmet(), *under_gpl()]
    for problem in problems:
        print(problem)
    print(f"{len(pins)} pins, {len(problems)} problems")
    code = 0
    if options.online:
        code = _ask_advisories()
    else:
        print("known vulnerabilities: not asked, that needs a connection (make audit ONLINE=1)")
    sys.exit(1 if problems or code else 0)


if __name__ == "__main__":
    main()
