"""What a row of the fault matrix is."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.workplace import Workplace

FEATURIZE = ["featurize"]
TRAIN = ["featurize", "train"]
ALL = ["featurize", "train", "evaluate"]


@dataclass(frozen=True)
class Row:
    """One row: does one bad thing for real, and compares what comes of it.

    Attributes:
        fault: what is done.
        run: does it; returns what happened in a few words, fails by raising.
    """

    fault: str
    run: Callable[[Workplace], str]


class SkippedRow(Exception):
    """A row that cannot be run here, and why."""
