"""Results of a long run kept one by one, so that it can be made in parts and its record assembled.

A state file has a JSON object per line; for each name the last one counts.
"""

import json
import os
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

from featurize.stage import timestamp

REPOSITORY = Path(__file__).parents[2]


@lru_cache(maxsize=1)
def commit() -> str:
    """The commit that is checked out at the first call, which belongs before the work.

    A plus where files differ from it, ``-`` without git.
    """
    said = []
    for command in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "-uno"]):
        try:
            ended = subprocess.run(
                ["git", "-C", str(REPOSITORY), *command], capture_output=True, text=True
            )
        except FileNotFoundError:
            return "-"
        if ended.returncode:
            return "-"
        said.append(ended.stdout.strip())
    return said[0] + ("+" if said[1] else "")


def keep(state: Path, name: str, result: dict[str, Any]) -> None:
    """Add the result of one part, with when and of which commit it is."""
    state.parent.mkdir(parents=True, exist_ok=True)
    entry = {"name": name, "finished": timestamp(), "commit": commit(), **result}
    with state.open("a") as stream:
        stream.write(json.dumps(entry) + os.linesep)


def kept(state: Path) -> dict[str, dict[str, Any]]:
    """Name to the last result of each part."""
    if not state.exists():
        return {}
    entries = [json.loads(line) for line in state.read_text().splitlines()]
    return {entry["name"]: entry for entry in entries}
