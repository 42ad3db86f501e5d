"""Linear projections of spliced frames: principal components, then linear discriminants.

Gaussians with diagonal covariances want features that are uncorrelated. Before anything is known of
the phones, principal components give that over all frames; once there is an alignment, linear
discriminant analysis gives it within the states and keeps what tells them apart (Haeb-Umbach &
Ney, ICASSP 1992).

Shape legend: n frames, X spliced features, D dimensions kept, S states.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

_RELATIVE_FLOOR = 1e-5


@dataclass(frozen=True)
class Projection:
    """``(x - mean) @ matrix``."""

    mean_X: NDArray[np.float32]  # subtracted first
    matrix_XD: NDArray[np.float32]  # columns in order of falling weight

    def __call__(self, spliced_nX: NDArray[np.float32]) -> NDArray[np.float32]:
        """Projected frames, (n, D)."""
        centred: NDArray[np.float32] = spliced_nX - self.mean_X
        return centred @ self.matrix_XD


class Scatter:
    """First and second moments of spliced frames, by state; float64 sums.

    Args:
        num_states: S.
    """

    def __init__(self, num_features: int, num_states: int) -> None:
        self._counts_S = np.zeros(num_states)
        self._sums_SX = np.zeros((num_states, num_features))
        self._outer_XX = np.zeros((num_features, num_features))

    def add(self, spliced_nX: NDArray[np.float32], states_n: NDArray[np.int64]) -> None:
        """Take in the frames of an utterance."""
        self._outer_XX += spliced_nX.T @ spliced_nX
        order = np.argsort(states_n, kind="stable")
        present, starts = np.unique(states_n[order], return_index=True)
        self._sums_SX[present] += np.add.reduceat(spliced_nX[order].astype(np.float64), starts)
        self._counts_S += np.bincount(states_n, minlength=len(self._counts_S))

    def merge(self, other: "Scatter") -> None:
        """Take in what was gathered elsewhere."""
        self._counts_S += other._counts_S
        self._sums_SX += other._sums_SX
        self._outer_XX += other._outer_XX

    def _total(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        count = self._counts_S.sum()
        mean = self._sums_SX.sum(0) / count
        return mean, self._outer_XX / count - np.outer(mean, mean)

    def principal_components(self, num_dimensions: int) -> Projection:
        """Unit variance in each direction, most varied first."""
        mean, total = self._total()
        values, vectors = np.linalg.eigh(total)
        values, vectors = values[::-1], vectors[:, ::-1]
        kept = min(num_dimensions, len(values))
        scale = 1.0 / np.sqrt(np.maximum(values[:kept], _RELATIVE_FLOOR * values[0]))
        return Projection(mean.astype(np.float32), (vectors[:, :kept] * scale).astype(np.float32))

    def discriminants(self, num_dimensions: int) -> Projection:
        """Unit variance within the states in each direction, best separated first."""
        mean, total = self._total()
        seen = self._counts_S > 0
        offsets = self._sums_SX[seen] / self._counts_S[seen, None] - mean
        shares = self._counts_S[seen] / self._counts_S.sum()
        between = (offsets.T * shares) @ offsets
        within = total - between
        within += np.eye(len(within)) * _RELATIVE_FLOOR * np.trace(total) / len(within)
        _, vectors = scipy.linalg.eigh(between, within)
        kept = vectors[:, ::-1][:, : min(num_dimensions, len(within))]
        return Projection(mean.astype(np.float32), np.ascontiguousarray(kept, np.float32))
