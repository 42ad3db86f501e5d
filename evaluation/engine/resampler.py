"""Sample-rate conversion of a stream: the batch converter on pieces that overlap by its reach."""

from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

from featurize.resampling import NUM_ZERO_CROSSINGS, resample
from featurize.stage import PipelineError

Floats = NDArray[np.float32]

_MAX_RATIO_TERM = 48_000
"""A polyphase filter has a phase per step of the ratio; real rates need a few hundred."""


class StreamResampler:
    """Converts a stream; the pieces put together equal ``resample`` of the whole."""

    def __init__(self, from_rate_hz: int, to_rate_hz: int) -> None:
        common = gcd(from_rate_hz, to_rate_hz)
        self._up, self._down = to_rate_hz // common, from_rate_hz // common
        if max(self._up, self._down) > _MAX_RATIO_TERM:
            raise PipelineError(f"{from_rate_hz} Hz has no usable ratio to {to_rate_hz} Hz")
        self._rates = (from_rate_hz, to_rate_hz)
        # Input samples on either side that an output sample depends on.
        self._reach = ceil(NUM_ZERO_CROSSINGS * max(self._up, self._down) / self._up) + 1
        self._held = np.zeros(0, np.float32)
        self._held_from = 0  # index of the first held sample; a multiple of `down`
        self._num_out = 0

    def feed(self, samples: Floats) -> Floats:
        """Take in samples; returns those of the result that no later sample can change."""
        if self._up == self._down:
            return samples
        self._held = np.concatenate([self._held, samples])
        known = self._held_from + len(self._held) - self._reach
        return self._emit(max(0, known * self._up // self._down))

    def finish(self) -> Floats:
        """The end of the stream: the rest of the result."""
        if self._up == self._down:
            return np.zeros(0, np.float32)
        num_in = self._held_from + len(self._held)
        return self._emit(-(-num_in * self._up // self._down))

    def _emit(self, end: int) -> Floats:
        """Result samples up to ``end``, and forget what none of the later ones needs."""
        if end <= self._num_out:
            return np.zeros(0, np.float32)
        first = self._held_from // self._down * self._up
        converted = resample(self._held, *self._rates)[self._num_out - first : end - first]
        self._num_out = end
        needed = end * self._down // self._up - self._reach
        drop = max(0, (needed - self._held_from) // self._down) * self._down
        self._held = self._held[drop:].copy()
        self._held_from += drop
        return np.clip(converted, -1.0, 1.0)
