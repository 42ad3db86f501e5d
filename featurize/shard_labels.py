"""The label columns of a shard, read without its features."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurize.schema import ShardInfo
from featurize.shards import damaged, int_lists, open_shard
from featurize.stage import Location


@dataclass(frozen=True, eq=False)
class LabelledRow:
    """An utterance's place in its shard, and its targets.

    Attributes:
        row_group: row group within the shard.
        row: row within the row group.
        num_frames: T.
        labels: (num_labels,) int32.
        alignment: (T,) int32, or None.
    """

    row_group: int
    row: int
    num_frames: int
    labels: NDArray[np.int32]
    alignment: NDArray[np.int32] | None


def read_label_columns(features: Location, shard: ShardInfo) -> Iterator[LabelledRow]:
    """Yield every utterance's targets, one row group in memory at a time.

    Args:
        features: the feature set.
        shard: which of its shards.

    Raises:
        PipelineError: when the file is missing, damaged, or has other counts than its manifest.
    """
    file = features.child(shard.file)
    num_rows = num_all_frames = 0
    with open_shard(file, shard) as parquet:
        for group in range(parquet.num_row_groups):
            table = parquet.read_row_group(
                group, columns=["num_frames", "labels", "alignment"], use_threads=False
            )
            num_frames = table["num_frames"].to_pylist()
            columns = (int_lists(table["labels"]), int_lists(table["alignment"]))
            num_rows += len(table)
            num_all_frames += sum(num_frames)
            for row, (frames, labels, alignment) in enumerate(
                zip(num_frames, *columns, strict=True)
            ):
                if labels is None:
                    raise damaged(file, "an utterance has no labels")
                yield LabelledRow(group, row, frames, labels, alignment)
    if (num_rows, num_all_frames) != (shard.num_utterances, shard.num_frames):
        raise damaged(file, "its counts are not the manifest's")
