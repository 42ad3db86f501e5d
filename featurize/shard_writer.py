"""Writing one shard: deterministic, zstd-compressed Parquet with page checksums."""

import hashlib
import io
from collections.abc import Iterable
from typing import IO, Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from featurize.schema import SHARD_SCHEMA, STORED_DTYPES, FeatureDtype, FeatureRow, ShardInfo
from featurize.stage import Location


class _HashingStream(io.RawIOBase):
    """Passes bytes on to a sequential writer, and counts and hashes them."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self.num_bytes = 0

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._stream.write(view)
        self._digest.update(view)
        self.num_bytes += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.num_bytes

    def writable(self) -> bool:
        return True

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


class PackedRow(TypedDict):
    """A row as ``SHARD_SCHEMA`` has it."""

    utterance_id: str
    speaker_id: str
    chapter_id: str
    subset: str
    text: str
    labels: NDArray[np.int32]
    num_samples: int
    num_frames: int
    num_features: int
    feature_dtype: FeatureDtype
    features: bytes
    alignment: NDArray[np.int32] | None


def pack_row(row: FeatureRow, dtype: FeatureDtype) -> PackedRow:
    """A row in the schema's columns, the features as little-endian bytes.

    Raises:
        ValueError: when a value does not fit the dtype; else infinity would be stored.
    """
    packed = row.features.astype(STORED_DTYPES[dtype], copy=False)
    if not np.isfinite(packed).all():
        raise ValueError(f"{row.utterance_id}: features are not finite in {dtype}")
    return {
        "utterance_id": row.utterance_id,
        "speaker_id": row.speaker_id,
        "chapter_id": row.chapter_id,
        "subset": row.subset,
        "text": row.text,
        "labels": row.labels,
        "num_samples": row.num_samples,
        "num_frames": row.features.shape[0],
        "num_features": row.features.shape[1],
        "feature_dtype": dtype,
        "features": packed.tobytes(),
        "alignment": row.alignment,
    }


def unpacked_features(packed: PackedRow) -> NDArray[np.floating]:
    """The features of a packed row as a reader will see them, (T, F)."""
    values = np.frombuffer(packed["features"], dtype=STORED_DTYPES[packed["feature_dtype"]])
    return values.reshape(packed["num_frames"], packed["num_features"])


def write_shard(
    location: Location,
    file: str,
    subset: str,
    packed_rows: Iterable[PackedRow],
    row_group_size: int,
) -> ShardInfo:
    """Write rows sorted by length, so that a row group needs little padding in a batch.

    Args:
        file: name of the shard below it.
        packed_rows: rows from ``pack_row``.
        row_group_size: rows per row group; the last may have fewer.

    Returns:
        What the manifest says of it. The same rows give the same bytes.

    Raises:
        ValueError: when there are no rows.
    """
    rows = sorted(packed_rows, key=lambda row: (row["num_frames"], row["utterance_id"]))
    if not rows:
        raise ValueError(f"{file}: a shard needs at least one row")
    with location.child(file).open_write() as stream:
        hashing = _HashingStream(stream)
        with pq.ParquetWriter(
            pa.PythonFile(hashing, mode="w"),
            SHARD_SCHEMA,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            write_statistics=["num_frames"],
            write_page_checksum=True,
            store_schema=True,
        ) as writer:
            for start in range(0, len(rows), row_group_size):
                group = rows[start : start + row_group_size]
                table = pa.Table.from_pylist(group, schema=SHARD_SCHEMA)
                writer.write_table(table, row_group_size=row_group_size)
    return ShardInfo(
        file=file,
        subset=subset,
        num_utterances=len(rows),
        num_frames=sum(row["num_frames"] for row in rows),
        num_bytes=hashing.num_bytes,
        sha256=hashing.sha256,
    )
