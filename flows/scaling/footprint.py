"""What grows in memory with a corpus, per piece, and how much of it each worker reads."""

import json
import random
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from featurize.cmvn import MomentSums, add_moments
from featurize.config import FeaturizeConfig
from featurize.corpora.entry import CorpusEntry
from featurize.make_shard import ShardPlan, plan_shards
from featurize.schema import FeaturizeManifest
from featurize.stage import Location
from training.batch_plan import GlobalBatch, IndexedRow, plan_epoch, worker_slice

_NUM_PARTS = 2_000
_TEXT_LENGTH = 185
"""Characters of a transcript; LibriSpeech's mean."""
_SHORTEST, _LONGEST = 150, 1_700
"""Frames of the utterances that are made up, evenly spread: about LibriSpeech's."""


class TimeAndBytes(NamedTuple):
    """Of one piece."""

    seconds: float
    num_bytes: float


def traced_bytes(make: Callable[[], object]) -> int:
    """Peak of Python's and numpy's memory while something is made and kept."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        made = make()
        _, peak = tracemalloc.get_traced_memory()
        del made
        return peak - before
    finally:
        tracemalloc.stop()


def speaker_part(num_features: int) -> TimeAndBytes:
    """Moments of one speaker in one shard: adding them up, and keeping them."""
    rng = random.Random(0)  # noqa: S311 - no secret

    def make() -> list[MomentSums]:
        return [
            MomentSums(
                count=100 + number,
                total=tuple(rng.random() for _ in range(num_features)),
                squares=tuple(rng.random() for _ in range(num_features)),
            )
            for number in range(_NUM_PARTS)
        ]

    num_bytes = traced_bytes(make) / _NUM_PARTS
    parts = make()
    started = time.perf_counter()
    add_moments(parts)
    return TimeAndBytes((time.perf_counter() - started) / _NUM_PARTS, num_bytes)


def plan_bytes(config: FeaturizeConfig, num_utterances: int) -> float:
    """The driver's memory for each utterance of a plan: entries as long as LibriSpeech's."""
    subset = config.splits.subsets[0]
    nowhere = Location.of("/nowhere")

    def make() -> tuple[list[CorpusEntry], tuple[ShardPlan, ...]]:
        entries = [
            CorpusEntry(
                utterance_id=f"{number // 400}-{number // 40}-{number:06d}",
                speaker_id=f"{number // 400}",
                chapter_id=f"{number // 40}",
                subset=subset,
                text=f"{number} ".ljust(_TEXT_LENGTH, "A"),
                audio=f"{subset}/{number // 400}/{number // 40}/{number:06d}.flac",
            )
            for number in range(num_utterances)
        ]
        return entries, plan_shards(entries, config, nowhere, nowhere)

    return traced_bytes(make) / num_utterances


def made_up_index(num_utterances: int, per_shard: int, row_group_size: int) -> list[IndexedRow]:
    """An index as a training worker holds it: shards sorted by length, cut into row groups."""
    rng = np.random.default_rng(0)
    rows = []
    for shard, start in enumerate(range(0, num_utterances, per_shard)):
        size = min(per_shard, num_utterances - start)
        lengths = sorted(rng.integers(_SHORTEST, _LONGEST, size).tolist())
        for number, frames in enumerate(lengths):
            group, row = divmod(number, row_group_size)
            rows.append(IndexedRow(shard, group, row, frames, frames))
    return rows


def epoch_plan(
    index: Sequence[IndexedRow], batch_size: int, max_frames: int | None, window_rows: int
) -> list[GlobalBatch]:
    """An epoch's batches of frame targets."""
    return plan_epoch(
        index,
        batch_size=batch_size,
        max_frames=max_frames,
        cut=True,
        window_rows=window_rows,
        seed=0,
        epoch=0,
    )


def read_share(index: Sequence[IndexedRow], plan: Sequence[GlobalBatch], num_workers: int) -> float:
    """Share of all row groups that a worker opens in an epoch, the mean over the workers."""
    groups = {(row.shard, row.row_group) for row in index}
    opened: list[set[tuple[int, int]]] = [set() for _ in range(num_workers)]
    for batch in plan:
        for rank in range(num_workers):
            for sequence in batch[worker_slice(len(batch), rank, num_workers)]:
                row = index[sequence.row]
                opened[rank].add((row.shard, row.row_group))
    return sum(len(own) for own in opened) / num_workers / len(groups)


def manifest_bytes_per_shard(manifest: FeaturizeManifest) -> float:
    """What one more shard adds to the manifest's file, its checksum included."""

    def size(copies: int) -> int:
        checksums = {
            f"{copy}{name}": checksum
            for copy in range(copies)
            for name, checksum in manifest.known_checksums().items()
        }
        larger = manifest.model_copy(
            update={"shards": manifest.shards * copies, "checksums": checksums}
        )
        return len(json.dumps(json.loads(larger.model_dump_json()), indent=1))

    return (size(3) - size(2)) / len(manifest.shards)
