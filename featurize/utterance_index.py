"""What a training plan needs to know of every utterance, in one small file beside the shards.

Whoever makes a feature set writes ``index.parquet`` with it, so that a training worker starts
without opening every shard. Sets of earlier versions have none; theirs is read from the shards.
"""

import io
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from featurize.schema import INDEX_NAME, FeaturizeManifest, ShardInfo
from featurize.shard_labels import read_label_columns
from featurize.shards import damaged, open_shard
from featurize.stage import Location, read_checked

INDEX_SCHEMA = pa.schema(
    [
        pa.field("row_group", pa.int32(), nullable=False),
        pa.field("num_frames", pa.int32(), nullable=False),
        pa.field("num_labels", pa.int32(), nullable=False),
        pa.field("frames_needed", pa.int32(), nullable=False),
        pa.field("is_aligned", pa.bool_(), nullable=False),
    ]
)
"""A row per utterance, in the order of the manifest's shards and of their rows: its row group,
its frames, its labels, the fewest frames in which CTC can spell these (``frames_needed`` of
``featurize.labels``), and whether its frames have targets."""


def index_shard(features: Location, shard: ShardInfo) -> pa.Table:
    """The index of one shard, read from its label columns."""
    parts = [_entries(table) for table in read_label_columns(features, shard)]
    file = features.child(shard.file)
    with open_shard(file, shard) as parquet:
        sizes = [parquet.metadata.row_group(g).num_rows for g in range(parquet.num_row_groups)]
    groups = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    if len(groups) != shard.num_utterances:
        raise damaged(file, "its counts are not the manifest's")
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return pa.table([groups, *columns], schema=INDEX_SCHEMA)


def _entries(table: pa.Table) -> tuple[NDArray[np.generic], ...]:
    """All columns of the index but the first, of some rows."""
    labels = table["labels"].combine_chunks()
    values, offsets = labels.values.to_numpy(), labels.offsets.to_numpy()
    # A label equal to the one before it, unless that one is another utterance's.
    repeats = np.zeros(len(values) + 1, np.int32)
    repeats[1:-1] = values[1:] == values[:-1]
    repeats[offsets] = 0
    num_repeats = np.diff(np.concatenate([[0], np.cumsum(repeats)])[offsets])
    num_labels = np.diff(offsets)
    return (
        table["num_frames"].to_numpy(),
        num_labels.astype(np.int32),
        (num_labels + num_repeats).astype(np.int32),
        np.asarray(table["alignment"].combine_chunks().is_valid()),
    )


def write_index(features: Location, shards: Iterable[pa.Table]) -> None:
    """Write the index of a feature set.

    Args:
        shards: the index of each of its shards, in the manifest's order.
    """
    with features.child(INDEX_NAME).open_write() as stream:
        pq.write_table(
            pa.concat_tables([INDEX_SCHEMA.empty_table(), *shards]), stream, compression="zstd"
        )


def read_index_of(
    features: Location, manifest: FeaturizeManifest, shards: Sequence[int]
) -> pa.Table:
    """The index of some shards, by their numbers in the manifest."""
    if INDEX_NAME not in manifest.checksums:
        tables = [index_shard(features, manifest.shards[number]) for number in shards]
        return pa.concat_tables([INDEX_SCHEMA.empty_table(), *tables])
    file = features.child(INDEX_NAME)
    try:
        content = read_checked(features, manifest, INDEX_NAME)
        table = pq.read_table(io.BytesIO(content), schema=INDEX_SCHEMA, use_threads=False)
    except pa.ArrowException as error:
        raise damaged(file, f"it is damaged ({str(error).splitlines()[0]})") from error
    counts = np.array([shard.num_utterances for shard in manifest.shards])
    if len(table) != counts.sum():
        raise damaged(file, "its counts are not the manifest's")
    if list(shards) == list(range(len(counts))):
        return table
    starts = np.cumsum(counts) - counts
    slices = [table.slice(starts[number], counts[number]) for number in shards]
    return pa.concat_tables([INDEX_SCHEMA.empty_table(), *slices])
