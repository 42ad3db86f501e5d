"""Features of a stream of samples, frame by frame, equal to those of the whole at once.

Built on ``featurize``'s own functions: what is held back between calls is only what a later sample
can still change (the unfinished window, the frames that differences look ahead to, the unfinished
stack). Dither is left out: it is seeded by an utterance's id, which a stream has none of.

Shape legend: t frames before stacking, T rows, F features per row.
"""

import numpy as np
from numpy.typing import NDArray

from evaluation.engine.description import FrontEndConfig
from featurize.fbank import FilterbankExtractor
from featurize.frames import append_deltas, cepstral_transform, num_stacks, stack_frames
from featurize.moments import MIN_STD
from featurize.stage import PipelineError

Floats = NDArray[np.float32]

_DELTA_REACH = 2
"""Frames that a first difference looks ahead."""

TRUSTED_S = 2.0
"""Seconds of speech that the training set's mean and deviation count as, beside a speaker's own; of
those tried the best or near it for frames of 10 and of 30 ms (evaluation/results/decoding.md)."""


class RunningNormaliser:
    """Subtracts means and divides by standard deviations, as the network was trained.

    By speaker, what the stream has had so far stands in for the speaker's whole speech: the
    training set's statistics count as some seconds of it, ahead of the first frame, so that the
    first frames are normalised by these and later ones by the speaker's own::

        mean_t = (n_0 mean + sum_{i <= t} x_i) / (n_0 + t)

    and likewise the mean of the squares.

    Args:
        config: how training normalised, and by what.
    """

    def __init__(self, config: FrontEndConfig) -> None:
        self._mode = config.cmvn
        self._mean = np.array(config.mean, np.float32)
        self._scale = (1.0 / np.array(config.std)).astype(np.float32)
        self._trusted = TRUSTED_S / (config.frame_shift_s * config.stride)
        mean = np.array(config.mean, np.float64)
        squares = np.array(config.std, np.float64) ** 2 + mean**2
        self._begin = self._trusted * np.stack([mean, squares])
        self.reset()

    def reset(self) -> None:
        """Forget the speaker."""
        self._sums = self._begin.copy()
        self._num_frames = 0

    def __call__(self, rows_TF: Floats) -> Floats:
        """Normalise the next frames."""
        if self._mode == "none":
            return np.asarray(rows_TF, np.float32)
        if self._mode == "global":
            return np.asarray((rows_TF - self._mean) * self._scale, np.float32)
        exact = rows_TF.astype(np.float64)
        sums = self._sums + np.cumsum(np.stack([exact, exact**2], axis=1), axis=0)
        counts = self._trusted + self._num_frames + 1 + np.arange(len(exact))
        if len(exact):
            self._sums, self._num_frames = sums[-1], self._num_frames + len(exact)
        mean_TF, squares_TF = np.moveaxis(sums / counts[:, None, None], 1, 0)
        std_TF = np.sqrt(np.maximum(squares_TF - mean_TF**2, MIN_STD**2))
        return np.asarray((exact - mean_TF) / std_TF, np.float32)


class FrontEnd:
    """Turns samples into normalised frames."""

    def __init__(self, config: FrontEndConfig) -> None:
        self.config = config
        self._filterbank = FilterbankExtractor(
            config.sample_rate_hz, config.frame_length_s, config.frame_shift_s, config.num_bins
        )
        self._cepstra = (
            cepstral_transform(config.num_bins, config.num_ceps).astype(np.float32)
            if config.features == "mfcc"
            else None
        )
        self._normaliser = RunningNormaliser(config)
        self._num_static = config.num_ceps if config.features == "mfcc" else config.num_bins
        self.reset()

    def reset(self) -> None:
        """Forget the stream and begin another."""
        self._normaliser.reset()
        self._samples = np.zeros(0, np.float32)
        self._static = np.zeros((0, self._num_static), np.float32)
        self._num_past = 0  # static frames that have had their differences, kept as context
        width = self._num_static * (1 + self.config.deltas)
        self._unstacked = np.zeros((0, width), np.float32)
        self._num_skipped = 0  # frames between two stacks that have not come yet

    def feed(self, samples: Floats) -> Floats:
        """Take in samples; returns the frames that are now certain.

        Args:
            samples: (n,) mono at the configured rate, in [-1, 1]; clipped to that.

        Returns:
            (T, F) float32, normalised.
        """
        if not bool(np.isfinite(samples).all()):
            raise PipelineError("not-a-number or infinity in the samples; mend the recording")
        clipped = np.clip(samples, -1.0, 1.0).astype(np.float32, copy=False)
        self._samples = np.concatenate([self._samples, clipped])
        static = self._filterbank(self._samples)
        self._samples = self._samples[len(static) * self._filterbank.shift_samples :].copy()
        if self._cepstra is not None:
            static = static @ self._cepstra
        return self._rows(static, is_last=False)

    def finish(self) -> Floats:
        """The end of the stream: the frames that waited for later ones."""
        rows = self._rows(np.zeros((0, self._num_static), np.float32), is_last=True)
        self.reset()
        return rows

    def _rows(self, static: Floats, is_last: bool) -> Floats:
        frames = self._with_deltas(static, is_last)
        config = self.config
        skipped = min(self._num_skipped, len(frames))
        self._num_skipped -= skipped
        waiting = np.concatenate([self._unstacked, frames[skipped:]])
        rows = stack_frames(waiting, config.stack, config.stride)
        used = num_stacks(len(waiting), config.stack, config.stride) * config.stride
        self._unstacked = waiting[used:].copy()
        self._num_skipped += max(0, used - len(waiting))
        rows = rows.astype(config.feature_dtype).astype(np.float32)
        return self._normaliser(rows)

    def _with_deltas(self, static: Floats, is_last: bool) -> Floats:
        """Append differences where the frames they look ahead to are there."""
        order = self.config.deltas
        if not order:
            return static
        reach = order * _DELTA_REACH
        self._static = np.concatenate([self._static, static])
        end = len(self._static) - (0 if is_last else reach)
        if end <= self._num_past:
            return np.zeros((0, self._num_static * (1 + order)), np.float32)
        frames = append_deltas(self._static, order)[self._num_past : end]
        keep_from = max(0, end - reach)
        self._static = self._static[keep_from:].copy()
        self._num_past = end - keep_from
        return frames
