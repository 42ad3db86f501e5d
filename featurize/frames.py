"""Frames after the filterbank: cepstra, time differences, stacking.

Nothing here reads a configuration, so a stream of frames can use it as well as a whole utterance.

Shape legend: T rows, t frames before stacking, F features per frame.
"""

import math

import numpy as np
from numpy.typing import NDArray

_DELTA_WINDOW = 2
_CEPSTRAL_LIFTER = 22.0


def delta_filter(order: int) -> NDArray[np.float64]:
    """Kaldi's delta weights: n / (2 sum n^2) for n in -2..2, convolved with itself ``order`` times.

    Returns:
        (4 * order + 1,) weights of the neighbouring frames, centred.
    """
    offsets = np.arange(-_DELTA_WINDOW, _DELTA_WINDOW + 1, dtype=np.float64)
    first = offsets / np.square(offsets).sum()
    weights = np.ones(1)
    for _ in range(order):
        weights = np.convolve(weights, first)
    return weights


def append_deltas(features: NDArray[np.float32], order: int) -> NDArray[np.float32]:
    """Append time differences as Kaldi's ``add-deltas`` does: edges repeat the outermost frame.

    Differs from applying ``torchaudio.functional.compute_deltas`` twice only in the two
    outermost frames on each side of the second difference, where that repeats first differences.

    Args:
        features: (t, F).
        order: 0, 1 or 2.

    Returns:
        (t, F * (1 + order)): static values, then first, then second differences.
    """
    if not order:
        return features
    if not len(features):
        return np.tile(features, (1, 1 + order))
    blocks = [features]
    for degree in range(1, order + 1):
        weights = delta_filter(degree)
        reach = len(weights) // 2
        padded = np.pad(features, ((reach, reach), (0, 0)), mode="edge")
        difference = np.zeros_like(features)
        for offset in np.flatnonzero(weights):
            difference += np.float32(weights[offset]) * padded[offset : offset + len(features)]
        blocks.append(difference)
    return np.concatenate(blocks, axis=1, dtype=np.float32)


def num_stacks(num_frames: int, stack: int, stride: int) -> int:
    """T: the full stacks among t frames, 1 + floor((t - stack) / stride), or 0."""
    return 0 if num_frames < stack else 1 + (num_frames - stack) // stride


def stack_frames(features: NDArray[np.float32], stack: int, stride: int) -> NDArray[np.float32]:
    """Join ``stack`` frames, every ``stride`` frames; an incomplete last stack is dropped.

    Args:
        features: (t, F).

    Returns:
        (T, stack * F), the earliest frame first.

    Example:
        >>> stack_frames(np.arange(5, dtype=np.float32)[:, None], stack=3, stride=2)
        array([[0., 1., 2.],
               [2., 3., 4.]], dtype=float32)
    """
    if stack == stride == 1:
        return features
    count = num_stacks(len(features), stack, stride)
    if not count:
        return np.empty((0, features.shape[1] * stack), dtype=features.dtype)
    columns = [features[k : k + (count - 1) * stride + 1 : stride] for k in range(stack)]
    return np.concatenate(columns, axis=1)


def cepstral_transform(num_bins: int, num_ceps: int) -> NDArray[np.float64]:
    """Orthonormal DCT-II times Kaldi's lifter 1 + 11 sin(pi i / 22).

    Returns:
        (num_bins, num_ceps).
    """
    bins, ceps = np.arange(num_bins)[:, None], np.arange(num_ceps)[None]
    dct = np.sqrt(2.0 / num_bins) * np.cos(np.pi / num_bins * (bins + 0.5) * ceps)
    dct[:, 0] = math.sqrt(1.0 / num_bins)
    lifter = 1.0 + 0.5 * _CEPSTRAL_LIFTER * np.sin(np.pi * ceps / _CEPSTRAL_LIFTER)
    return np.asarray(dct * lifter)
