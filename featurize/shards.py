"""Reading and checking shards.

What takes little time is checked on every read: Parquet page checksums,
schema version, the shape against the number of bytes, label ids against the inventory.
``verify_shard`` also checks the whole file against the manifest's SHA-256.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from featurize.schema import (
    SCHEMA_VERSION,
    SHARD_SCHEMA,
    SHARDS_FOLDER,
    STORED_DTYPES,
    FeatureRow,
    FeaturizeManifest,
    LabelInventory,
    ShardInfo,
    StateInventory,
)
from featurize.stage import (
    FileChecksum,
    Location,
    PipelineError,
    VerifyMode,
    damage_error,
    find_damage,
    is_of_the_store,
)


def read_rows(
    location: Location,
    shard: ShardInfo,
    row_groups: Sequence[int] | None = None,
    *,
    inventory: LabelInventory | None = None,
    states: StateInventory | None = None,
) -> list[FeatureRow]:
    """Read utterances with their features.

    Args:
        row_groups: which row groups, in this order; all where None.
        inventory: where given, label and alignment ids are checked against it.
        states: what alignment ids are checked against instead, where they are of states.

    Returns:
        Rows in file order; ``features`` is a read-only view in the stored precision.
    """
    file = location.child(shard.file)
    with open_shard(file, shard) as parquet:
        groups = list(range(parquet.num_row_groups)) if row_groups is None else list(row_groups)
        table = parquet.read_row_groups(groups, use_threads=False)
    if row_groups is None and len(table) != shard.num_utterances:
        raise damaged(file, "its counts are not the manifest's")
    num_symbols = None if inventory is None else len(inventory.symbols)
    num_targets = num_symbols if states is None else len(states.phones)
    return _rows(file, table, (num_symbols, num_targets))


def iter_rows(
    location: Location, manifest: FeaturizeManifest, subsets: Iterable[str]
) -> Iterator[FeatureRow]:
    """All rows of some subsets, one row group in memory at a time."""
    for shard in shards_of(manifest, subsets):
        with open_shard(location.child(shard.file), shard) as parquet:
            num_groups = parquet.num_row_groups
        for group in range(num_groups):
            yield from read_rows(
                location, shard, [group], inventory=manifest.labels, states=manifest.states
            )


def read_numbered(
    location: Location, manifest: FeaturizeManifest, subsets: Iterable[str], numbers: range
) -> Iterator[FeatureRow]:
    """Some rows of some subsets, by their numbers in the order of ``iter_rows``, ascending."""
    first = 0
    for shard in shards_of(manifest, subsets):
        end = first + shard.num_utterances
        wanted = [number - first for number in numbers if first <= number < end]
        first = end
        if not wanted:
            continue
        with open_shard(location.child(shard.file), shard) as parquet:
            sizes = [parquet.metadata.row_group(g).num_rows for g in range(parquet.num_row_groups)]
        ends = np.cumsum(sizes)
        for group in sorted(set(np.searchsorted(ends, wanted, side="right").tolist())):
            rows = read_rows(
                location, shard, [group], inventory=manifest.labels, states=manifest.states
            )
            start = int(ends[group]) - sizes[group]
            yield from (rows[n - start] for n in wanted if start <= n < ends[group])


def shards_of(manifest: FeaturizeManifest, subsets: Iterable[str]) -> tuple[ShardInfo, ...]:
    """The shards of some subsets, in manifest order."""
    wanted = set(subsets)
    unknown = sorted(wanted - set(manifest.subsets))
    if unknown:
        raise PipelineError(
            f"subset {unknown[0]!r} is not in this feature set; it has "
            f"{', '.join(sorted(manifest.subsets))}"
        )
    return tuple(shard for shard in manifest.shards if shard.subset in wanted)


def read_columns(
    location: Location, manifest: FeaturizeManifest, subsets: Iterable[str], columns: Sequence[str]
) -> Iterator[pa.Table]:
    """Some columns of some subsets, a table for each shard."""
    for shard in shards_of(manifest, subsets):
        file = location.child(shard.file)
        with open_shard(file, shard) as parquet:
            table = parquet.read(list(columns), use_threads=False)
        if len(table) != shard.num_utterances:
            raise damaged(file, "its counts are not the manifest's")
        yield table


def verify_shard(location: Location, shard: ShardInfo) -> None:
    """Check a whole file against the size and SHA-256 in the manifest."""
    for damage in find_damage(location, {shard.file: checksum_of(shard)}):
        raise damaged(location.child(shard.file), damage.problem)


def verify_shards(location: Location, shards: Iterable[ShardInfo], mode: VerifyMode) -> None:
    """Check shards before they are used, as thoroughly as configured.

    Beyond this, every read checks what it reads by Parquet's page checksums.

    Args:
        mode: ``off``, ``sampled`` (all sizes, the SHA-256 of one file in eight) or ``full``.
    """
    expected = {shard.file: checksum_of(shard) for shard in shards}
    for damage in find_damage(location, expected, mode):
        raise damage_error(location, damage)


def checksum_of(shard: ShardInfo) -> FileChecksum:
    """A shard's size and SHA-256, in the form all files have."""
    return FileChecksum(num_bytes=shard.num_bytes, sha256=shard.sha256)


def damaged(file: Location, problem: str) -> PipelineError:
    """The error of a shard that cannot be used; names the file and how to redo it alone."""
    folder = file.parent
    stage = folder.parent if folder.name == SHARDS_FOLDER else folder
    return PipelineError(
        f"shard {file} cannot be used: {problem}; redo it alone with: spikeline repair {stage}"
    )


@lru_cache(maxsize=1024)
def _footer(file: Location, sha256: str) -> pq.FileMetaData:
    """A shard's footer; kept, because training reads single row groups of a file many times."""
    with file.arrow().open_input_file(file.path) as source:
        return pq.ParquetFile(source, memory_map=False).metadata


@contextmanager
def open_shard(file: Location, shard: ShardInfo) -> Iterator[pq.ParquetFile]:
    """Open with page checksums on; whatever pyarrow makes of damage becomes a PipelineError.

    Raises:
        PipelineError: when the shard is missing or damaged.
        OSError: when the store fails; the shard itself may be sound.
    """
    try:
        footer = _footer(file, shard.sha256)
        _check_version(file, footer)
        with file.arrow().open_input_file(file.path) as source:
            yield pq.ParquetFile(
                source, metadata=footer, page_checksum_verification=True, pre_buffer=True
            )
    except FileNotFoundError as error:
        raise damaged(file, "it is missing") from error
    except (pa.ArrowException, OSError, IndexError, UnicodeDecodeError) as error:
        if is_of_the_store(error):
            raise
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise damaged(file, f"it is damaged ({problem})") from error


def _check_version(file: Location, footer: pq.FileMetaData) -> None:
    stored = (
        (footer.metadata or {}).get(b"spikeline_schema_version", b"none").decode("ascii", "replace")
    )
    if stored != str(SCHEMA_VERSION):
        raise damaged(
            file, f"it has schema version {stored[:20]} and this version reads {SCHEMA_VERSION}"
        )
    if not footer.schema.to_arrow_schema().equals(SHARD_SCHEMA):
        raise damaged(file, "its columns are not the schema's")


def _rows(
    file: Location, table: pa.Table, limits: tuple[int | None, int | None]
) -> list[FeatureRow]:
    # Columns as plain lists: the wide one stays Arrow buffers, which numpy views uncopied.
    small = {
        name: table[name].to_pylist()
        for name in SHARD_SCHEMA.names
        if name not in ("features", "labels", "alignment")
    }
    lists = {name: int_lists(table[name]) for name in ("labels", "alignment")}
    rows = []
    for i, scalar in enumerate(table["features"]):
        name = small["utterance_id"][i]
        labels, alignment = lists["labels"][i], lists["alignment"][i]
        features = _features(
            file,
            name,
            scalar.as_buffer(),
            small["feature_dtype"][i],
            (small["num_frames"][i], small["num_features"][i]),
        )
        if labels is None or (alignment is not None and len(alignment) != len(features)):
            raise damaged(file, f"{name}: labels or alignment do not fit the features")
        for ids, limit in zip((labels, alignment), limits, strict=True):
            if limit is None or ids is None or not len(ids):
                continue
            if not 0 <= ids.min() <= ids.max() < limit:
                raise damaged(file, f"{name}: a label id lies outside 0..{limit - 1}")
        rows.append(
            FeatureRow(
                utterance_id=name,
                speaker_id=small["speaker_id"][i],
                chapter_id=small["chapter_id"][i],
                subset=small["subset"][i],
                text=small["text"][i],
                labels=labels,
                num_samples=small["num_samples"][i],
                features=features,
                alignment=alignment,
            )
        )
    return rows


def int_lists(column: pa.ChunkedArray) -> list[NDArray[np.int32] | None]:
    """Rows of a list<int32> column as arrays, without a Python object per number."""
    rows: list[NDArray[np.int32] | None] = []
    for chunk in column.chunks:
        values, offsets = chunk.values.to_numpy(), chunk.offsets.to_numpy()
        valid = chunk.is_valid().to_pylist()
        rows.extend(
            values[offsets[i] : offsets[i + 1]] if valid[i] else None for i in range(len(chunk))
        )
    return rows


def _features(
    file: Location, name: str, data: pa.Buffer, dtype_name: str, shape: tuple[int, int]
) -> NDArray[np.floating]:
    dtype = STORED_DTYPES.get(dtype_name)
    if dtype is None:
        raise damaged(file, f"{name}: unknown feature dtype {dtype_name[:20]!r}")
    if min(shape) < 1 or shape[0] * shape[1] * dtype.itemsize != data.size:
        raise damaged(
            file, f"{name}: {data.size} bytes do not hold {shape[0]} x {shape[1]} {dtype_name}"
        )
    return np.frombuffer(data, dtype=dtype).reshape(shape)
