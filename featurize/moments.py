"""Moments of frames: counts, sums and sums of squares, and the statistics that follow from them.

Apart from ``featurize.cmvn``, so that an exported engine, which has no pyarrow, takes the same.

Shape legend: T frames, F features per frame. Sums are in float64, so that the order of shards
changes the statistics only in the last bits; they are always added in shard order.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from featurize.stage import TypedConfig

MIN_STD = 1e-3
"""Floor of the standard deviation: a constant feature must not be blown up by division."""


class MomentSums(TypedConfig):
    """Count, sum and sum of squares of a set of frames, per feature."""

    count: int
    total: tuple[float, ...]  # (F,) sum
    squares: tuple[float, ...]  # (F,) sum of squares

    @classmethod
    def of(cls, features: NDArray[np.floating]) -> "MomentSums":
        """Moments of one utterance's features, (T, F)."""
        exact = features.astype(np.float64)
        return cls(
            count=len(exact),
            total=tuple(exact.sum(axis=0).tolist()),
            squares=tuple(np.einsum("tf,tf->f", exact, exact).tolist()),
        )


class RunningMoments:
    """Moments added one after the other."""

    def __init__(self) -> None:
        """Begin with no frames."""
        self._count = 0
        self._sums = np.zeros((2, 0))

    def add(self, moments: MomentSums) -> None:
        """Take in further frames.

        Raises:
            ValueError: when they have another number of features than those before.
        """
        sums = np.array([moments.total, moments.squares])
        if self._count and sums.shape != self._sums.shape:
            raise ValueError("moments of different feature sizes")
        self._sums = self._sums + sums if self._count else sums
        self._count += moments.count

    @property
    def count(self) -> int:
        """Frames so far."""
        return self._count

    @property
    def sums(self) -> MomentSums:
        """Of all frames so far."""
        total, squares = self._sums.tolist()
        return MomentSums(count=self._count, total=tuple(total), squares=tuple(squares))


def add_moments(moments: Iterable[MomentSums]) -> MomentSums:
    """Moments of the union.

    Raises:
        ValueError: when there are none to add, or they differ in F.
    """
    running = RunningMoments()
    for part in moments:
        running.add(part)
    if not running.count:
        raise ValueError("no moments to add")
    return running.sums


def mean_and_std(moments: MomentSums) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation, E[x^2] - E[x]^2, floored at ``MIN_STD``.

    Returns:
        Two tuples of F values.
    """
    mean = np.asarray(moments.total) / moments.count
    variance = np.asarray(moments.squares) / moments.count - mean**2
    std = np.sqrt(np.maximum(variance, MIN_STD**2))
    return tuple(mean.tolist()), tuple(std.tolist())
