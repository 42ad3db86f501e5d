"""Constants of Kaldi's filterbank: window, transform size, mel filters."""

import math

import numpy as np
from numpy.typing import NDArray

LOW_FREQ_HZ = 20.0


def fft_size(window_samples: int) -> int:
    """The power of two that holds a window."""
    return int(2 ** math.ceil(math.log2(window_samples)))


def povey_window(num_samples: int) -> NDArray[np.float64]:
    """Hann window raised to the power 0.85: like Hamming, but zero at the edges."""
    phase = 2.0 * np.pi * np.arange(num_samples) / (num_samples - 1)
    return np.asarray((0.5 - 0.5 * np.cos(phase)) ** 0.85)


def mel_filters(num_bins: int, fft_size: int, sample_rate_hz: int) -> NDArray[np.float64]:
    """Triangles, evenly spaced and linear on the mel scale m(f) = 1127 ln(1 + f / 700).

    Args:
        num_bins: B, number of filters.
        fft_size: length of the Fourier transform.
        sample_rate_hz: sample rate; the filters end at half of it.

    Returns:
        (fft_size / 2 + 1, B) weights; the last bin, half the sample rate, has none, as in Kaldi.

    Raises:
        ValueError: when a filter is too narrow to hold a single spectrum bin.
    """

    def mel(frequency_hz: NDArray[np.floating] | float) -> NDArray[np.float64]:
        return np.asarray(1127.0 * np.log1p(np.asarray(frequency_hz) / 700.0))

    edges = np.linspace(mel(LOW_FREQ_HZ), mel(sample_rate_hz / 2), num_bins + 2)
    bins = mel(np.arange(fft_size // 2) * (sample_rate_hz / fft_size))[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0.0, np.minimum(rising, falling))
    if not weights.any(axis=0).all():
        raise ValueError(
            f"num_bins={num_bins} leaves a filter without a spectrum bin at "
            f"{sample_rate_hz} Hz and FFT size {fft_size}; use fewer bins or a longer window"
        )
    return np.vstack([weights, np.zeros((1, num_bins))])
