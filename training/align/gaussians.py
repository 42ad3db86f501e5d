"""Gaussian mixtures with diagonal covariances, one per state.

Shape legend: n frames, S states, M mixture components, D dimensions.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.special import logsumexp

FloatArray = NDArray[np.float64]

MIN_OCCUPANCY = 10.0
"""Frames below which a component keeps the parameters it had."""
_VARIANCE_FLOOR = 0.02
_WEIGHT_FLOOR = 1e-4
_SPLIT_DEVIATIONS = 0.2


@dataclass(frozen=True)
class Mixtures:
    """Parameters of all states."""

    weights_SM: FloatArray  # share of each component; rows sum to 1
    means_SMD: FloatArray
    variances_SMD: FloatArray  # diagonals of the covariances

    def of_states(self, states_U: NDArray[np.int64]) -> "Mixtures":
        """Those of some states alone."""
        return Mixtures(
            self.weights_SM[states_U], self.means_SMD[states_U], self.variances_SMD[states_U]
        )

    def log_likelihoods(self, x_nD: NDArray[np.float32]) -> NDArray[np.float32]:
        """``log p(x | s)`` of every frame and state, (n, S)."""
        num_states, num_components, num_dimensions = self.means_SMD.shape
        precisions = (1.0 / self.variances_SMD).reshape(-1, num_dimensions)
        means = self.means_SMD.reshape(-1, num_dimensions)
        constants = np.log(self.weights_SM).ravel() - 0.5 * (
            num_dimensions * np.log(2.0 * np.pi)
            - np.log(precisions).sum(1)
            + (means**2 * precisions).sum(1)
        )
        log_nSM = (x_nD**2) @ (-0.5 * precisions.T).astype(np.float32)
        log_nSM += x_nD @ (means * precisions).T.astype(np.float32)
        log_nSM += constants.astype(np.float32)
        joint = log_nSM.reshape(len(x_nD), num_states, num_components)
        if num_components == 1:
            return joint[:, :, 0]
        best_nS1 = joint.max(axis=2, keepdims=True)
        joint -= best_nS1
        total: NDArray[np.float32] = np.log(np.exp(joint, out=joint).sum(axis=2))
        total += best_nS1[:, :, 0]
        return total

    def responsibilities(
        self, x_nD: NDArray[np.float32], states_n: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Posterior of each component of the state a frame is in, (n, M)."""
        if self.weights_SM.shape[1] == 1:
            return np.ones((len(x_nD), 1), np.float32)
        variances = self.variances_SMD[states_n]
        distance = ((x_nD[:, None] - self.means_SMD[states_n]) ** 2 / variances).sum(2)
        log_joint = np.log(self.weights_SM[states_n]) - 0.5 * (distance + np.log(variances).sum(2))
        posterior = np.exp(log_joint - logsumexp(log_joint, axis=1, keepdims=True))
        return np.asarray(posterior, np.float32)

    def split(self) -> "Mixtures":
        """Twice as many components, each pair a fifth of a deviation to either side."""
        step = _SPLIT_DEVIATIONS * np.sqrt(self.variances_SMD)
        return Mixtures(
            np.concatenate([self.weights_SM, self.weights_SM], 1) / 2,
            np.concatenate([self.means_SMD - step, self.means_SMD + step], 1),
            np.concatenate([self.variances_SMD, self.variances_SMD], 1),
        )


class MixtureStatistics:
    """What the next estimate needs: occupancies, first and second moments of components."""

    def __init__(self, num_states: int, num_components: int, num_dimensions: int) -> None:
        self._shape = (num_states, num_components, num_dimensions)
        size = num_states * num_components
        self._occupancy = np.zeros(size)
        self._first = np.zeros((size, num_dimensions))
        self._second = np.zeros((size, num_dimensions))

    def add(
        self,
        x_nD: NDArray[np.float32],
        states_n: NDArray[np.int64],
        responsibilities_nM: NDArray[np.float32],
    ) -> None:
        """Take in the frames of an utterance."""
        num_frames, num_components = responsibilities_nM.shape
        rows = (states_n[:, None] * num_components + np.arange(num_components)).ravel()
        columns = np.repeat(np.arange(num_frames), num_components)
        members = scipy.sparse.csr_matrix(
            (responsibilities_nM.ravel(), (rows, columns)), (len(self._occupancy), num_frames)
        )
        self._occupancy += np.asarray(members.sum(1)).ravel()
        self._first += members @ x_nD
        self._second += members @ (x_nD**2)

    def merge(self, other: "MixtureStatistics") -> None:
        """Take in what was gathered elsewhere."""
        self._occupancy += other._occupancy
        self._first += other._first
        self._second += other._second

    def estimate(self, before: Mixtures | None) -> Mixtures:
        """Maximum-likelihood parameters; with too few frames a component keeps what it had.

        Args:
            before: the parameters that gave the responsibilities; None at the start, where a
                state without frames gets the moments of all frames.
        """
        occupancy = self._occupancy
        total = occupancy.sum()
        everyone = self._first.sum(0) / total
        spread = self._second.sum(0) / total - everyone**2
        divisor = np.maximum(occupancy, 1.0)[:, None]
        means = self._first / divisor
        variances = self._second / divisor - means**2
        scarce = occupancy < MIN_OCCUPANCY
        if before is None:
            means[scarce], variances[scarce] = everyone, spread
        else:
            dimensions = self._shape[2]
            means[scarce] = before.means_SMD.reshape(-1, dimensions)[scarce]
            variances[scarce] = before.variances_SMD.reshape(-1, dimensions)[scarce]
        variances = np.maximum(variances, _VARIANCE_FLOOR * np.maximum(spread, 1e-6))
        weights = occupancy.reshape(self._shape[:2]) + _WEIGHT_FLOOR
        return Mixtures(
            weights / weights.sum(1, keepdims=True),
            means.reshape(self._shape),
            variances.reshape(self._shape),
        )
