"""Copies of training utterances at other speeds: how they are named, and what they count for."""

from collections.abc import Mapping, Sequence
from typing import Any


def copy_prefix(factor: float) -> str:
    """How the id of a copy at a speed begins; the recording's follows."""
    return f"sp{factor:g}-"


def copy_prefixes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """How the ids of copies begin in the training subsets of a feature set of this config."""
    return tuple(copy_prefix(factor) for factor in config.get("speed_factors") or ())


def recorded_hours(hours: Sequence[float], config: Mapping[str, Any]) -> float:
    """Hours of training speech as it was recorded, of hours that hold its copies too.

    Args:
        hours: of each training subset, from the manifest of a feature set.
        config: of that feature set.
    """
    factors: Sequence[float] = config.get("speed_factors") or ()
    return sum(hours) / (1.0 + sum(1.0 / factor for factor in factors))
