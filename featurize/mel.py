"""Constants of Kaldi's filterbank: window, transform size, mel filters.

Shape legend: K spectrum bins below half the sample rate, B mel filters.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LOW_FREQ_HZ = 20.0


class MelSlopes(NamedTuple):
    """Triangular filters by their slopes.

    Filter b rises over segment b and falls over segment b + 1, so each spectrum bin counts
    towards two filters at most: two weights a bin say everything.
    """

    # (B + 2,) first bin of each of the B + 1 segments, and the last one's end
    segment_start: NDArray[np.int64]
    rising: NDArray[np.float64]  # (K,) weight of each bin in the filter that rises over it
    falling: NDArray[np.float64]  # (K,) weight of each bin in the filter that falls over it


def fft_size(window_samples: int) -> int:
    """The power of two that holds a window."""
    return int(2 ** math.ceil(math.log2(window_samples)))


def povey_window(num_samples: int) -> NDArray[np.float64]:
    """Hann window raised to the power 0.85: like Hamming, but zero at the edges."""
    phase = 2.0 * np.pi * np.arange(num_samples) / (num_samples - 1)
    return np.asarray((0.5 - 0.5 * np.cos(phase)) ** 0.85)


def mel_slopes(num_bins: int, size: int, sample_rate_hz: int) -> MelSlopes:
    """Triangles, evenly spaced and linear on the mel scale m(f) = 1127 ln(1 + f / 700).

    Args:
        num_bins: B, number of filters, from 20 Hz to half the sample rate.
        size: length of the Fourier transform; the bin at half the sample rate has no weight, as
            in Kaldi.

    Raises:
        ValueError: when a filter is too narrow to hold a single spectrum bin.
    """

    def mel(frequency_hz: NDArray[np.floating] | float) -> NDArray[np.float64]:
        return np.asarray(1127.0 * np.log1p(np.asarray(frequency_hz) / 700.0))

    edges = np.linspace(mel(LOW_FREQ_HZ), mel(sample_rate_hz / 2), num_bins + 2)
    bins = mel(np.arange(size // 2) * (sample_rate_hz / size))
    start = np.searchsorted(bins, edges)
    segment = np.clip(np.searchsorted(edges, bins, side="right") - 1, 0, num_bins)
    width = edges[1] - edges[0]
    inside = bins >= edges[0]
    slopes = MelSlopes(
        segment_start=start.astype(np.int64),
        rising=np.where(inside, (bins - edges[segment]) / width, 0.0),
        falling=np.where(inside, (edges[segment + 1] - bins) / width, 0.0),
    )
    for filter_start, middle, end in zip(start, start[1:], start[2:], strict=False):
        weight = slopes.rising[filter_start:middle].sum() + slopes.falling[middle:end].sum()
        if not weight > 0:
            raise ValueError(
                f"num_bins={num_bins} leaves a filter without a spectrum bin at "
                f"{sample_rate_hz} Hz and FFT size {size}; use fewer bins or a longer window"
            )
    return slopes
