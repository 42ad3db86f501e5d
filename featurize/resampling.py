"""Sample-rate conversion: one polyphase filter for all of the pipeline."""

from functools import lru_cache
from math import gcd

import numpy as np
from numpy.typing import NDArray

# The low-pass keeps 95% of the narrower band; 48 zero crossings a side and a Kaiser window of
# beta 9 put images and aliases about 90 dB down.
_PASSBAND = 0.95
NUM_ZERO_CROSSINGS = 48
_KAISER_BETA = 9.0


@lru_cache(maxsize=16)
def _low_pass(up: int, down: int) -> NDArray[np.float32]:
    # SciPy's signal package takes over a second to import, and most corpora need no resampling.
    from scipy.signal import firwin

    widest = max(up, down)
    taps: NDArray[np.float32] = firwin(
        2 * NUM_ZERO_CROSSINGS * widest + 1, _PASSBAND / widest, window=("kaiser", _KAISER_BETA)
    ).astype(np.float32)
    taps.setflags(write=False)
    return taps


def resample(
    samples: NDArray[np.float32], from_rate_hz: int, to_rate_hz: int
) -> NDArray[np.float32]:
    """Convert samples to another rate.

    Args:
        samples: (num_samples,) float32.

    Returns:
        (ceil(num_samples * to / from),) float32; sample n of the result lies at the time of
        sample n * from / to of the input.
    """
    if from_rate_hz == to_rate_hz:
        return samples
    from scipy.signal import resample_poly

    common = gcd(from_rate_hz, to_rate_hz)
    up, down = to_rate_hz // common, from_rate_hz // common
    converted: NDArray[np.float32] = resample_poly(samples, up, down, window=_low_pass(up, down))
    return converted.astype(np.float32, copy=False)
