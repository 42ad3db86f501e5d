"""Kaldi's log mel filterbank energies, in compiled loops around a batched FFT, on one thread.

The same numbers as Kaldi's ``compute-fbank-feats`` with dither 0 (Povey et al., *The Kaldi
Speech Recognition Toolkit*, 2011): 16-bit sample scale, mean of each window removed,
pre-emphasis 0.97 within the window, Povey window, zero-padded FFT to a power of two, power
spectrum, triangular mel filters from 20 Hz to half the sample rate, natural logarithm.
Windows that would reach past the end are left out (``snip_edges``).

Without torch and without a BLAS: nothing here starts threads of its own, holds the interpreter
lock while it computes, or costs a worker process a slow import.

Shape legend: T frames, Z the FFT size, K = Z / 2 spectrum bins, B mel filters.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from featurize.mel import fft_size, mel_slopes, povey_window

SAMPLE_SCALE = 32768.0
"""Kaldi works on 16-bit integers; our samples lie in [-1, 1)."""
PREEMPHASIS = 0.97
ENERGY_FLOOR = np.finfo(np.float32).eps

# A block's buffers stay in the second-level cache.
_BLOCK_FRAMES = 256
# Sums may be reordered and fused; infinities and NaN keep their meaning, for the caller's check.
_FAST_MATH = {"contract", "reassoc", "nsz", "arcp"}

FunctionT = TypeVar("FunctionT", bound=Callable[..., None])


def _compiled(function: FunctionT) -> FunctionT:
    options = {"nogil": True, "fastmath": _FAST_MATH}
    try:
        return cast(FunctionT, numba.njit(cache=True, **options)(function))
    except RuntimeError:
        # A read-only installation without a home directory: compile in every process.
        return cast(FunctionT, numba.njit(**options)(function))


@_compiled
def _condition_windows(
    samples: NDArray[np.float32],
    window: NDArray[np.float32],
    shift: int,
    preemphasis: np.float32,
    frames_TZ: NDArray[np.float32],
) -> None:
    """Cut, centre, pre-emphasise, taper and zero-pad: one pass over each window.

    With mean c, (x_n - c) - p (x_{n-1} - c) = x_n - p x_{n-1} - (1 - p) c; the first sample
    precedes itself.
    """
    size = window.shape[0]
    rest = np.float32(1.0) - preemphasis
    for t in range(frames_TZ.shape[0]):
        source = samples[t * shift : t * shift + size]
        target = frames_TZ[t]
        total = np.float32(0.0)
        for n in range(size):
            total += source[n]
        offset = rest * (total / np.float32(size))
        target[0] = window[0] * (rest * source[0] - offset)
        for n in range(1, size):
            target[n] = window[n] * (source[n] - preemphasis * source[n - 1] - offset)
        for n in range(size, target.shape[0]):
            target[n] = np.float32(0.0)


@_compiled
def _mel_energies(
    spectrum: NDArray[np.float32],
    segment_start: NDArray[np.int64],
    rising_K: NDArray[np.float32],
    falling_K: NDArray[np.float32],
    energies_TB: NDArray[np.float32],
) -> None:
    """Power of each spectrum bin, shared out between the two filters that it lies under.

    ``spectrum`` holds real and imaginary parts in turn, (T, 2 K + 2).
    """
    size = rising_K.shape[0]
    rising, falling = np.empty_like(rising_K), np.empty_like(falling_K)
    for t in range(energies_TB.shape[0]):
        parts = spectrum[t]
        for k in range(size):
            power = parts[2 * k] * parts[2 * k] + parts[2 * k + 1] * parts[2 * k + 1]
            rising[k] = power * rising_K[k]
            falling[k] = power * falling_K[k]
        up = np.float32(0.0)
        for k in range(segment_start[0], segment_start[1]):
            up += rising[k]
        for b in range(energies_TB.shape[1]):
            next_up, down = np.float32(0.0), np.float32(0.0)
            for k in range(segment_start[b + 1], segment_start[b + 2]):
                next_up += rising[k]
                down += falling[k]
            energies_TB[t, b] = up + down
            up = next_up


class FilterbankExtractor:
    """Computes log mel filterbank energies; holds the window and the filters.

    Example:
        >>> import numpy as np
        >>> fbank = FilterbankExtractor(16000, 0.025, 0.010, num_bins=40)
        >>> fbank(np.zeros(16000, np.float32)).shape  # one second, whole windows only
        (98, 40)
    """

    def __init__(
        self, sample_rate_hz: int, frame_length_s: float, frame_shift_s: float, num_bins: int
    ) -> None:
        """Prepare the constants.

        Raises:
            ValueError: when a mel filter would be empty.
        """
        # Kaldi truncates; the small addend undoes 399.99999 where 400 is meant.
        self.window_samples = int(sample_rate_hz * frame_length_s + 1e-6)
        self.shift_samples = int(sample_rate_hz * frame_shift_s + 1e-6)
        self.num_bins = num_bins
        self._fft_size = fft_size(self.window_samples)
        self._window = (povey_window(self.window_samples) * SAMPLE_SCALE).astype(np.float32)
        slopes = mel_slopes(num_bins, self._fft_size, sample_rate_hz)
        self._segment_start = slopes.segment_start
        self._rising_K = slopes.rising.astype(np.float32)
        self._falling_K = slopes.falling.astype(np.float32)

    def num_frames(self, num_samples: int) -> int:
        """T, the whole windows that fit: 1 + floor((samples - window) / shift), or 0."""
        if num_samples < self.window_samples:
            return 0
        return 1 + (num_samples - self.window_samples) // self.shift_samples

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Log energies of every whole window.

        Args:
            samples: (num_samples,) mono, in [-1, 1).

        Returns:
            (T, B) natural logarithms; (0, B) for less than one window.
        """
        samples = np.ascontiguousarray(samples, dtype=np.float32)
        num_frames = self.num_frames(len(samples))
        energies_TB = np.empty((num_frames, self.num_bins), dtype=np.float32)
        frames_TZ = np.empty((min(num_frames, _BLOCK_FRAMES), self._fft_size), dtype=np.float32)
        for start in range(0, num_frames, _BLOCK_FRAMES):
            block = energies_TB[start : start + _BLOCK_FRAMES]
            windows = frames_TZ[: len(block)]
            _condition_windows(
                samples[start * self.shift_samples :],
                self._window,
                self.shift_samples,
                np.float32(PREEMPHASIS),
                windows,
            )
            spectrum = scipy.fft.rfft(windows, axis=1).view(np.float32)
            _mel_energies(spectrum, self._segment_start, self._rising_K, self._falling_K, block)
        np.maximum(energies_TB, ENERGY_FLOOR, out=energies_TB)
        return np.log(energies_TB, out=energies_TB)
