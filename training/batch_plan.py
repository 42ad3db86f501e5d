"""Which sequences make up each global batch of an epoch, the same for any number of workers.

Row groups are shuffled and read in windows of bounded and about equal size, so that an epoch does
not end on a few speakers; within a window sequences of like length share a batch (padding is
waste) and batches come in random order. A worker takes a
contiguous slice of every global batch, so it reads only the row groups of its own utterances,
and each utterance is seen once an epoch over all workers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from featurize.stage import PipelineError

_LENGTH_JITTER = 0.1

GlobalBatch = NDArray[np.int32]
"""(sequences, 3): for each the utterance's number in its split, first frame, end frame."""


class TrainingSequence(NamedTuple):
    """Frames ``start`` to ``stop`` of the utterance ``row`` of a split."""

    row: int
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """The global batches of one epoch, drawn window by window as they are asked for.

    Shape legend: N utterances.
    """

    group_N: NDArray[np.int32]  # row group of each utterance, counted over the split; ascending
    num_frames_N: NDArray[np.int32]  # its frames
    batch_size: int  # sequences per global batch
    max_frames: int | None  # the curriculum's sequence length; None for whole utterances
    # cut longer utterances into chunks of ``max_frames`` (frame targets), rather than leave them to
    # a later stage (CTC)
    cut: bool
    window_rows: int  # utterances shuffled together
    seed: int  # with ``epoch``, determines the draw
    epoch: int  # from 0

    def __post_init__(self) -> None:
        if not self._fits().any():
            shortest = self.num_frames_N.min() if len(self.num_frames_N) else 0
            raise PipelineError(
                f"curriculum: no utterance has at most chunk_frames={self.max_frames} frames (the "
                f"shortest has {shortest}); raise chunk_frames of this stage"
            )

    def __len__(self) -> int:
        """Number of batches; only the last may hold fewer sequences than the others."""
        lengths = self.num_frames_N[self._fits()]
        num_sequences = int((-(-lengths // self._chunk)).sum()) if self.cut else len(lengths)
        return -(-num_sequences // self.batch_size)

    def __iter__(self) -> Iterator[GlobalBatch]:
        """Draw the batches; every time the same."""
        rng = np.random.default_rng([self.seed, self.epoch])
        rows = np.flatnonzero(self._fits()).astype(np.int32)
        starts = np.flatnonzero(np.diff(self.group_N[rows], prepend=-1, append=-1))
        waiting = np.empty((0, 3), np.int32)
        window: list[NDArray[np.int32]] = []
        rows_read = num_windows_done = 0
        num_windows = -(-len(rows) // self.window_rows)
        order = rng.permutation(len(starts) - 1)
        for position, group in enumerate(order):
            window.append(rows[starts[group] : starts[group + 1]])
            rows_read += len(window[-1])
            is_last = position == len(order) - 1
            if rows_read * num_windows >= (num_windows_done + 1) * len(rows) or is_last:
                waiting = np.concatenate([waiting, self._sequences(np.concatenate(window))])
                drawn, waiting = _draw(waiting, self.batch_size, rng, keep_rest=not is_last)
                yield from drawn
                window, num_windows_done = [], num_windows_done + 1

    @property
    def _chunk(self) -> int:
        """Frames of the longest sequence, where utterances are cut."""
        return self.max_frames or np.iinfo(np.int32).max

    def _fits(self) -> NDArray[np.bool_]:
        """Which utterances take part, (N,)."""
        limit = None if self.cut else self.max_frames
        return self.num_frames_N <= (np.iinfo(np.int32).max if limit is None else limit)

    def _sequences(self, rows: NDArray[np.int32]) -> GlobalBatch:
        """The sequences of some utterances, in order."""
        lengths = self.num_frames_N[rows]
        chunk = self._chunk if self.cut else np.iinfo(np.int32).max
        counts = -(-lengths // chunk)
        number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        starts = number * chunk
        stops = np.minimum(starts + chunk, np.repeat(lengths, counts))
        return np.stack([np.repeat(rows, counts), starts, stops], axis=1).astype(np.int32)


def _draw(
    waiting: GlobalBatch, batch_size: int, rng: np.random.Generator, *, keep_rest: bool
) -> tuple[Iterator[GlobalBatch], GlobalBatch]:
    """Cut a window into batches of like length; the shortest rest may wait for the next window."""
    lengths = (waiting[:, 2] - waiting[:, 1]).astype(np.float64)
    jittered = lengths * rng.uniform(1.0 - _LENGTH_JITTER, 1.0 + _LENGTH_JITTER, len(lengths))
    ordered = waiting[np.argsort(-jittered, kind="stable")]
    cut_at = len(ordered) - (len(ordered) % batch_size if keep_rest else 0)
    starts = np.arange(0, cut_at, batch_size)[rng.permutation(-(-cut_at // batch_size))]
    batches = (ordered[start : min(start + batch_size, cut_at)] for start in starts)
    return batches, ordered[cut_at:]


def worker_slice(batch_size: int, rank: int, world_size: int) -> slice:
    """A worker's contiguous part of a global batch; sizes differ by one at most."""
    return slice(batch_size * rank // world_size, batch_size * (rank + 1) // world_size)
