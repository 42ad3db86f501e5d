"""Which sequences make up each global batch of an epoch, the same for any number of workers.

Row groups are shuffled and read in windows of bounded size; within a window sequences of
like length share a batch (padding is waste) and batches come in random order. A worker takes a
contiguous slice of every global batch, so it reads only the row groups of its own utterances,
and each utterance is seen once an epoch over all workers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from featurize.stage import PipelineError

_LENGTH_JITTER = 0.1


class IndexedRow(NamedTuple):
    """Where an utterance lies and what the plan needs to know of it.

    Attributes:
        shard: number of the shard in the feature manifest.
        row_group: row group within the shard.
        row: row within the row group.
        num_frames: T.
        num_targets: labels for CTC, frames for the frame objective.
    """

    shard: int
    row_group: int
    row: int
    num_frames: int
    num_targets: int


class TrainingSequence(NamedTuple):
    """Frames ``start`` to ``stop`` of the utterance ``row`` of the index."""

    row: int
    start: int
    stop: int


GlobalBatch = tuple[TrainingSequence, ...]


def plan_epoch(
    index: Sequence[IndexedRow],
    *,
    batch_size: int,
    max_frames: int | None,
    cut: bool,
    window_rows: int,
    seed: int,
    epoch: int,
) -> list[GlobalBatch]:
    """Draw the global batches of one epoch.

    Args:
        index: all training utterances.
        batch_size: sequences per global batch.
        max_frames: the curriculum's sequence length; None for whole utterances.
        cut: cut longer utterances into chunks of ``max_frames`` (frame targets), rather than
            leave them to a later stage (CTC).
        window_rows: utterances shuffled together.
        seed: with ``epoch``, determines the draw.
        epoch: from 0.

    Raises:
        PipelineError: when no utterance is short enough for the stage.
    """
    rng = np.random.default_rng([seed, epoch])
    groups: dict[tuple[int, int], list[int]] = {}
    for number, row in enumerate(index):
        if cut or max_frames is None or row.num_frames <= max_frames:
            groups.setdefault((row.shard, row.row_group), []).append(number)
    if not groups:
        shortest = min((row.num_frames for row in index), default=0)
        raise PipelineError(
            f"curriculum: no utterance has at most chunk_frames={max_frames} frames (the shortest "
            f"has {shortest}); raise chunk_frames of this stage"
        )
    keys = sorted(groups)
    batches: list[GlobalBatch] = []
    waiting: list[TrainingSequence] = []
    num_rows = 0
    for position, key in enumerate(rng.permutation(len(keys))):
        members = groups[keys[key]]
        num_rows += len(members)
        for member in members:
            waiting.extend(
                _sequences(member, index[member].num_frames, max_frames if cut else None)
            )
        is_last = position == len(keys) - 1
        if num_rows >= window_rows or is_last:
            drawn, waiting = _draw(waiting, batch_size, rng, keep_rest=not is_last)
            batches.extend(drawn)
            num_rows = 0
    return batches


def _sequences(row: int, num_frames: int, chunk: int | None) -> list[TrainingSequence]:
    if chunk is None:
        return [TrainingSequence(row, 0, num_frames)]
    return [
        TrainingSequence(row, start, min(start + chunk, num_frames))
        for start in range(0, num_frames, chunk)
    ]


def _draw(
    waiting: list[TrainingSequence],
    batch_size: int,
    rng: np.random.Generator,
    *,
    keep_rest: bool,
) -> tuple[list[GlobalBatch], list[TrainingSequence]]:
    """Cut a window into batches of like length; the shortest rest may wait for the next window."""
    lengths = np.array([sequence.stop - sequence.start for sequence in waiting], dtype=np.float64)
    jittered = lengths * rng.uniform(1.0 - _LENGTH_JITTER, 1.0 + _LENGTH_JITTER, len(lengths))
    ordered = [waiting[i] for i in np.argsort(-jittered, kind="stable")]
    rest: list[TrainingSequence] = []
    if keep_rest and len(ordered) % batch_size:
        cut_at = len(ordered) - len(ordered) % batch_size
        ordered, rest = ordered[:cut_at], ordered[cut_at:]
    batches = [tuple(ordered[i : i + batch_size]) for i in range(0, len(ordered), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))], rest


def worker_slice(batch_size: int, rank: int, world_size: int) -> slice:
    """A worker's contiguous part of a global batch; sizes differ by one at most."""
    return slice(batch_size * rank // world_size, batch_size * (rank + 1) // world_size)
