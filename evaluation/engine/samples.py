"""Samples as a caller gives them, checked before anything listens."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featurize.stage import PipelineError


def checked_samples(samples: ArrayLike) -> NDArray[np.floating]:
    """One channel of numbers in [-1, 1], (n,); larger ones are left to who listens, which clips.

    Raises:
        PipelineError: when there are several channels, when numbers are integers, whose range is
            another, or when one is not finite.
    """
    array = np.asarray(samples)
    if array.ndim != 1:
        raise PipelineError(
            f"samples of shape {array.shape}; give one channel, (n,), such as their mean"
        )
    if array.dtype.kind != "f":
        full_scale = "32768" if array.dtype == np.int16 else "the largest value of their format"
        raise PipelineError(
            f"samples of type {array.dtype}; give floating-point numbers in [-1, 1], divided by "
            f"{full_scale}"
        )
    if not bool(np.isfinite(array).all()):
        raise PipelineError("not-a-number or infinity in the samples; mend the recording")
    return array
