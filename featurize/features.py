"""From samples to the rows a recogniser reads: fbank or MFCC, deltas, frame stacking.

One rule for lengths: only whole windows, and of those only whole stacks. Row i of the output
joins frames i * stride .. i * stride + stack - 1, and what is said "at" the row is what is said
at the centre sample of its middle frame (the earlier of two middle ones).

Shape legend: T rows, t frames before stacking, F features per row.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from featurize.fbank import SAMPLE_SCALE, FilterbankExtractor
from featurize.featurize_config import FeaturizeConfig
from featurize.frames import append_deltas, cepstral_transform, num_stacks, stack_frames


class FeatureExtractor:
    """Computes a configuration's features; holds all constants, so build one per process."""

    def __init__(self, config: FeaturizeConfig) -> None:
        """Prepare window, filters and transforms.

        Raises:
            ValueError: when the configuration leaves a mel filter empty.
        """
        self.config = config
        self.filterbank = FilterbankExtractor(
            config.sample_rate_hz, config.frame_length_s, config.frame_shift_s, config.num_bins
        )
        self._cepstra = (
            cepstral_transform(config.num_bins, config.num_ceps).astype(np.float32)
            if config.features == "mfcc"
            else None
        )

    def num_frames(self, num_samples: int) -> int:
        """T of an utterance of so many samples."""
        frames = self.filterbank.num_frames(num_samples)
        return num_stacks(frames, self.config.stack, self.config.stride)

    def centre_samples(self, num_frames: int) -> NDArray[np.int64]:
        """Sample at the centre of each row's middle frame, (T,)."""
        middle = (self.config.stack - 1) // 2
        frames = np.arange(num_frames, dtype=np.int64) * self.config.stride + middle
        return frames * self.filterbank.shift_samples + self.filterbank.window_samples // 2

    def __call__(self, samples: NDArray[np.float32], utterance_id: str = "") -> NDArray[np.float32]:
        """Features of one utterance.

        Args:
            samples: (num_samples,) mono at the configured rate, in [-1, 1).
            utterance_id: seeds the dither, so that a rerun gives the same bytes.

        Returns:
            (T, F) float32, before normalisation; T may be 0.
        """
        if self.config.dither:
            seed = int.from_bytes(hashlib.sha256(utterance_id.encode()).digest()[:8], "little")
            noise = np.random.default_rng(seed).standard_normal(len(samples), dtype=np.float32)
            samples = samples + noise * np.float32(self.config.dither / SAMPLE_SCALE)
        features = self.filterbank(samples)
        if self._cepstra is not None:
            features = features @ self._cepstra
        features = append_deltas(features, self.config.deltas)
        return stack_frames(features, self.config.stack, self.config.stride)
