"""The label columns of a shard, read without its features."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurize.schema import ShardInfo
from featurize.shards import damaged, int_lists, open_shard
from featurize.stage import Location

_ROWS_AT_ONCE = 1024

Targets = tuple[NDArray[np.int32], NDArray[np.int32] | None]
"""An utterance's labels, (num_labels,), and its alignment, (T,), or None."""


def read_targets(features: Location, shard: ShardInfo) -> Iterator[Targets]:
    """Yield every utterance's labels and alignment, in file order."""
    for table in read_label_columns(features, shard):
        alignments = int_lists(table["alignment"])
        for labels, alignment in zip(int_lists(table["labels"]), alignments, strict=True):
            assert labels is not None  # looked at by read_label_columns
            yield labels, alignment


def read_label_columns(features: Location, shard: ShardInfo) -> Iterator[pa.Table]:
    """Yield the columns ``num_frames``, ``labels`` and ``alignment``, some rows at a time."""
    file = features.child(shard.file)
    num_rows = num_frames = 0
    with open_shard(file, shard) as parquet:
        columns = ["num_frames", "labels", "alignment"]
        for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=columns, use_threads=False):
            table = pa.Table.from_batches([batch])
            if table["labels"].null_count:
                raise damaged(file, "an utterance has no labels")
            num_rows += len(table)
            num_frames += int(table["num_frames"].to_numpy().sum())
            yield table
    if (num_rows, num_frames) != (shard.num_utterances, shard.num_frames):
        raise damaged(file, "its counts are not the manifest's")
