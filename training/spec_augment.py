"""SpecAugment: masks over time and features (Park et al. 2019, arXiv 1904.08779)."""

import numpy as np
from numpy.typing import NDArray

from training.train_config import SpecAugmentConfig


def spec_augment(
    features_TF: NDArray[np.float32], config: SpecAugmentConfig, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return a copy with random spans set to 0, the mean of normalised features.

    Args:
        features_TF: normalised features of one utterance.
        rng: seeded by utterance and epoch, so that masks do not depend on the worker.
    """
    masked = features_TF.copy()
    num_frames, num_features = masked.shape
    for _ in range(config.num_time_masks):
        width = int(rng.integers(0, int(config.max_time_share * num_frames) + 1))
        start = int(rng.integers(0, num_frames - width + 1))
        masked[start : start + width] = 0.0
    for _ in range(config.num_feature_masks):
        width = int(rng.integers(0, int(config.max_feature_share * num_features) + 1))
        start = int(rng.integers(0, num_features - width + 1))
        masked[:, start : start + width] = 0.0
    return masked
