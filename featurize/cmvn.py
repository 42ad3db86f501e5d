"""Cepstral mean and variance normalisation: streamed moments, statistics, application.

Shape legend: T frames, F features per frame. Sums are in float64, so that the order of shards
changes the statistics only in the last bits; they are always added in shard order.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from featurize.schema import CmvnStatistics, FeatureRow
from featurize.stage import PipelineError, TypedConfig

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
    """Moments added one after the other; the same sums as ``add_moments`` of all at once."""

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
    def sums(self) -> MomentSums:
        """Of all frames so far."""
        total, squares = self._sums.tolist()
        return MomentSums(count=self._count, total=tuple(total), squares=tuple(squares))


def add_moments(moments: Iterable[MomentSums]) -> MomentSums:
    """Moments of the union.

    Raises:
        ValueError: when there are none to add, or they differ in F.
    """
    parts = list(moments)
    if not parts:
        raise ValueError("no moments to add")
    if len({len(part.total) for part in parts}) != 1:
        raise ValueError("moments of different feature sizes")
    return MomentSums(
        count=sum(part.count for part in parts),
        total=tuple(np.sum([part.total for part in parts], axis=0).tolist()),
        squares=tuple(np.sum([part.squares for part in parts], axis=0).tolist()),
    )


def mean_and_std(moments: MomentSums) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation, E[x^2] - E[x]^2, floored at ``MIN_STD``.

    Returns:
        Two tuples of F values.
    """
    mean = np.asarray(moments.total) / moments.count
    variance = np.asarray(moments.squares) / moments.count - mean**2
    std = np.sqrt(np.maximum(variance, MIN_STD**2))
    return tuple(mean.tolist()), tuple(std.tolist())


def cmvn_statistics(
    mode: Literal["none", "global", "speaker"],
    train: Iterable[MomentSums],
    speakers: dict[str, MomentSums],
) -> CmvnStatistics:
    """Statistics for the manifest.

    Args:
        mode: what the reader will subtract; the global moments are always recorded.
        train: moments of parts of the train split.
        speakers: each speaker's moments over that speaker's own utterances, of any split.
    """
    mean, std = mean_and_std(add_moments(train))
    if mode != "speaker":
        return CmvnStatistics(mode=mode, mean=mean, std=std)
    own = {speaker: mean_and_std(moments) for speaker, moments in sorted(speakers.items())}
    return CmvnStatistics(
        mode=mode,
        mean=mean,
        std=std,
        speaker_mean={speaker: values[0] for speaker, values in own.items()},
        speaker_std={speaker: values[1] for speaker, values in own.items()},
    )


class Normaliser:
    """Applies CMVN to rows; build it once and keep it, the statistics are unpacked here."""

    def __init__(self, cmvn: CmvnStatistics) -> None:
        """Unpack the statistics of a feature set's manifest."""
        self._is_identity = cmvn.mode == "none"
        self._everyone = _shift_and_scale(cmvn.mean, cmvn.std)
        self._speakers = {
            speaker: _shift_and_scale(mean, cmvn.speaker_std[speaker])
            for speaker, mean in cmvn.speaker_mean.items()
        }

    def __call__(self, row: FeatureRow) -> NDArray[np.float32]:
        """(x - mean) / std in float32, (T, F); a speaker without an entry gets the global ones."""
        if self._is_identity:
            return row.features.astype(np.float32)
        mean, scale = self._speakers.get(row.speaker_id, self._everyone)
        if mean.shape[0] != row.features.shape[1]:
            raise PipelineError(
                f"{row.utterance_id}: {row.features.shape[1]} features, but the statistics have "
                f"{mean.shape[0]}; use the shards and the manifest of one location"
            )
        return (row.features.astype(np.float32) - mean) * scale


def normalise(row: FeatureRow, cmvn: CmvnStatistics) -> NDArray[np.float32]:
    """A row's features after mean and variance normalisation, float32, (T, F).

    For many rows keep a ``Normaliser``, which unpacks the statistics once.
    """
    return Normaliser(cmvn)(row)


def _shift_and_scale(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.array(mean, dtype=np.float32), (1.0 / np.array(std)).astype(np.float32)
