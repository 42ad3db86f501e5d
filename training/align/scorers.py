"""What scores the states of an utterance's frames: Gaussians or a trained network.

Shape legend: T rows, t frames before stacking, S states.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from featurize.cmvn import Normaliser
from featurize.schema import FeatureRow
from featurize.stage import Location
from training.align.flat_start import GaussianModel
from training.align.stacking import Stacking
from training.align.states import ContextStates, PhoneStates, StateSequence
from training.batching import collate
from training.trained_model import TrainedModel, load_model


class Scorer(Protocol):
    """Scores frames.

    Attributes:
        stacking: how its frames lie in the rows of the features.
        sequence: its states of a sequence of phones.
    """

    stacking: Stacking
    sequence: StateSequence

    def __call__(self, rows: Sequence[FeatureRow]) -> Iterator[NDArray[np.float32]]:
        """Score of each frame in each state, (t, S), of one utterance after the other."""
        ...


class GaussianScorer:
    """Likelihoods by Gaussians, of the frames that rows were joined from.

    Args:
        model: the Gaussians.
        stacking: how rows were joined.
        normalise: by the statistics of the feature set.
    """

    def __init__(self, model: GaussianModel, stacking: Stacking, normalise: Normaliser) -> None:
        self.stacking = stacking
        self.sequence: StateSequence = PhoneStates(model.states_per_phone)
        self._model = model
        self._normalise = normalise

    def __call__(self, rows: Sequence[FeatureRow]) -> Iterator[NDArray[np.float32]]:
        """Likelihoods ``log p(x | s)``, (t, S), of one utterance after the other."""
        for row in rows:
            yield self._model.scores(self.stacking.frames(self._normalise(row)))


class NetworkScorer:
    """Posteriors of a frame-trained network, divided by the states' priors.

    Args:
        recogniser: trained on an alignment of these features.
    """

    def __init__(self, recogniser: TrainedModel) -> None:
        manifest = recogniser.manifest
        self.stacking = Stacking(1, 1, manifest.frame_shift_s)
        self.sequence: StateSequence = (
            PhoneStates(1)
            if manifest.states is None
            else ContextStates(manifest.states, len(manifest.labels.symbols))
        )
        self._recogniser = recogniser
        counts = recogniser.label_statistics["frame_counts"].double()
        # A state never seen has no prior to divide by; the best of them would win every frame.
        shares = torch.where(counts > 0, counts / counts.sum(), torch.ones_like(counts))
        self._log_prior_S = shares.log().float().numpy()

    @classmethod
    def of(cls, training: Location) -> "NetworkScorer":
        """Load a finished training run."""
        return cls(load_model(training))

    def __call__(self, rows: Sequence[FeatureRow]) -> Iterator[NDArray[np.float32]]:
        """Scaled likelihoods ``log p(s | x) - log p(s)``, (T, S), of one after the other."""
        batch = collate(rows, self._recogniser.manifest.cmvn)
        with torch.inference_mode():
            output = self._recogniser.network(batch.x_TBF, batch.lengths_B)
        log_probs_BTS = output.log_probs_TBO.transpose(0, 1).numpy()
        for scores_TS, row in zip(log_probs_BTS, rows, strict=True):
            yield scores_TS[: len(row.features)] - self._log_prior_S
