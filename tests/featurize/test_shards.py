"""Shards: round trip, determinism, index, and every kind of damage."""

import errno
import hashlib
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurize.cmvn import cmvn_statistics
from featurize.moments import MomentSums
from featurize.schema import (
    SHARD_SCHEMA,
    FeatureRow,
    FeaturizeManifest,
    LabelInventory,
    SubsetInfo,
)
from featurize.shard_labels import read_targets
from featurize.shard_writer import pack_row, write_shard
from featurize.shards import (
    iter_rows,
    read_columns,
    read_numbered,
    read_rows,
    shards_of,
    verify_shard,
)
from featurize.stage import Location, PipelineError
from featurize.utterance_index import index_shard
from flows.retries import is_io_error

INVENTORY = LabelInventory(kind="phones", symbols=("a", "b", "c"), scored_as=("a", "b", "c"))


def make_row(number, num_frames, rng, with_alignment):
    return FeatureRow(
        utterance_id=f"u{number:03d}",
        speaker_id=f"s{number % 3}",
        chapter_id="c",
        subset="train",
        text="EINS ZWEI ÄÖ",
        labels=rng.integers(0, 3, rng.integers(0, 9)).astype(np.int32),
        num_samples=160 * num_frames,
        features=rng.standard_normal((num_frames, 5)).astype(np.float32),
        alignment=rng.integers(0, 3, num_frames).astype(np.int32) if with_alignment else None,
    )


def make_rows(count=20, seed=0, with_alignment=False):
    rng = np.random.default_rng(seed)
    return [make_row(i, int(rng.integers(1, 60)), rng, with_alignment) for i in range(count)]


def write(location, rows, dtype="float16", file="shard-00000.parquet", row_group_size=8):
    packed = [pack_row(row, dtype) for row in rows]
    return write_shard(location, file, rows[0].subset, packed, row_group_size)


def manifest_of(shards, subsets=("train",)):
    moments = [MomentSums.of(np.ones((1, 5), dtype=np.float32))]
    info = SubsetInfo(num_utterances=1, num_speakers=1, num_frames=1, hours=1.0)
    return FeaturizeManifest(
        stage="featurize",
        schema_version=1,
        fingerprint="f",
        created_at="now",
        versions={},
        config={},
        corpus_digest="d",
        splits={"train": ("train",)},
        sample_rate_hz=16000,
        frame_shift_s=0.01,
        num_features=5,
        labels=INVENTORY,
        cmvn=cmvn_statistics("global", moments, {}),
        subsets=dict.fromkeys(subsets, info),
        shards=tuple(shards),
        reject_counts={},
        num_resampled=0,
    )


def in_file_order(rows):
    return sorted(rows, key=lambda row: (len(row.features), row.utterance_id))


def assert_same(read, written, dtype):
    for field in ("utterance_id", "speaker_id", "chapter_id", "subset", "text", "num_samples"):
        assert getattr(read, field) == getattr(written, field)
    assert read.features.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read.features, written.features.astype(dtype))
    np.testing.assert_array_equal(read.labels, written.labels)
    assert (read.alignment is None) == (written.alignment is None)
    if written.alignment is not None:
        np.testing.assert_array_equal(read.alignment, written.alignment)


@given(
    st.integers(1, 30),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.sampled_from(["float16", "float32"]),
    st.integers(1, 9),
)
@settings(max_examples=25, deadline=None)
def test_round_trip(tmp_path_factory, count, seed, with_alignment, dtype, row_group_size):
    location = Location(str(tmp_path_factory.mktemp("shard")))
    rows = make_rows(count, seed, with_alignment)
    shard = write(location, rows, dtype, row_group_size=row_group_size)
    verify_shard(location, shard)
    assert (shard.num_utterances, shard.num_frames) == (count, sum(len(r.features) for r in rows))
    for read, written in zip(
        read_rows(location, shard, inventory=INVENTORY), in_file_order(rows), strict=True
    ):
        assert_same(read, written, dtype)


def test_the_same_rows_in_any_order_give_the_same_bytes(tmp_path):
    location, rows = Location(str(tmp_path)), make_rows()
    first = write(location, rows, file="a.parquet")
    second = write(location, rows[::-1], file="b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    content = (tmp_path / "a.parquet").read_bytes()
    assert first.sha256 == second.sha256 == hashlib.sha256(content).hexdigest()
    assert first.num_bytes == len(content)


def test_single_row_groups_and_their_order(tmp_path):
    location, rows = Location(str(tmp_path)), in_file_order(make_rows(20))
    shard = write(location, rows)
    read = [row.utterance_id for row in read_rows(location, shard, [2, 0])]
    assert read == [row.utterance_id for row in [*rows[16:], *rows[:8]]]


def test_the_rows_of_some_subsets_are_those_of_their_shards(tmp_path):
    location = Location(str(tmp_path))
    rows = make_rows(20)
    others = [replace(row, subset="dev", utterance_id=f"d{i}") for i, row in enumerate(rows)]
    shards = [
        write(location, rows[:11], file="shard-0.parquet"),
        write(location, others, file="shard-1.parquet"),
        write(location, rows[11:], file="shard-2.parquet"),
    ]
    manifest = manifest_of(shards, ("train", "dev"))
    assert shards_of(manifest, ["train"]) == (shards[0], shards[2])
    streamed = [row.utterance_id for row in iter_rows(location, manifest, ["train"])]
    assert sorted(streamed) == sorted(row.utterance_id for row in rows)
    with pytest.raises(PipelineError, match="'test' is not in this feature set; it has dev, train"):
        shards_of(manifest, ["test"])


def test_label_columns_are_those_of_the_rows(tmp_path):
    location = Location(str(tmp_path))
    shard = write(location, make_rows(20, with_alignment=True))
    rows = read_rows(location, shard)
    for row, (labels, alignment) in zip(rows, read_targets(location, shard), strict=True):
        np.testing.assert_array_equal(labels, row.labels)
        np.testing.assert_array_equal(alignment, row.alignment)


def test_index_reads_no_features(tmp_path):
    """With every feature byte overwritten, the index is the same; reading rows is refused."""
    location = Location(str(tmp_path))
    shard = write(location, make_rows(20))
    before = index_shard(location, shard)
    metadata = pq.ParquetFile(tmp_path / shard.file).metadata
    content = bytearray((tmp_path / shard.file).read_bytes())
    number = SHARD_SCHEMA.get_field_index("features")
    for group in range(metadata.num_row_groups):
        column = metadata.row_group(group).column(number)
        start = column.data_page_offset
        content[start : start + column.total_compressed_size] = (
            b"\xff" * column.total_compressed_size
        )
    (tmp_path / shard.file).write_bytes(content)
    assert index_shard(location, shard).equals(before)
    with pytest.raises(PipelineError, match="spikeline repair") as caught:
        read_rows(location, shard)
    assert str(caught.value).endswith(str(location))  # the stage, not its folder of shards


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_flipped_bit_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip")
    location, rows = Location(str(path)), make_rows(12)
    shard = write(location, rows)
    content = bytearray((path / shard.file).read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    (path / shard.file).write_bytes(content)
    with pytest.raises(
        PipelineError, match=r"shard-00000\.parquet cannot be used.*spikeline repair"
    ):
        verify_shard(location, shard)
    try:
        read = read_rows(location, shard, inventory=INVENTORY)
    except PipelineError:
        return
    # A flip outside checksummed pages may pass a reader, but must not change what was said.
    for now, before in zip(read, in_file_order(rows), strict=True):
        np.testing.assert_array_equal(now.features, before.features.astype(np.float16))


@pytest.mark.parametrize("keep", [0, 3, 100, -9, -1])
def test_truncated_files_are_refused(tmp_path, keep):
    location = Location(str(tmp_path))
    shard = write(location, make_rows())
    content = (tmp_path / shard.file).read_bytes()
    (tmp_path / shard.file).write_bytes(content[:keep])
    for reader in (verify_shard, read_rows, index_shard):
        with pytest.raises(PipelineError, match="cannot be used"):
            reader(location, shard)


def test_missing_files_are_refused(tmp_path):
    location = Location(str(tmp_path))
    shard = write(location, make_rows())
    (tmp_path / shard.file).unlink()
    for reader in (verify_shard, read_rows):
        with pytest.raises(PipelineError, match="it is missing"):
            reader(location, shard)


def test_a_store_that_fails_is_no_damage(tmp_path, monkeypatch):
    """It is tried again, and nobody is told to repair a sound shard."""
    location = Location(str(tmp_path))
    shard = write(location, make_rows())
    for error in (TimeoutError("read timed out"), OSError(errno.EIO, "input/output error")):

        def fails(self, error=error):
            raise error

        monkeypatch.setattr(Location, "arrow", fails)
        with pytest.raises(OSError, match=re.escape(str(error))) as caught:
            read_rows(location, shard)
        assert is_io_error(caught.value)
        monkeypatch.undo()
    assert read_rows(location, shard)


def rewrite(path, shard, change, schema=SHARD_SCHEMA):
    """Write a whole, readable Parquet file whose content is not what the schema promises."""
    rows = pq.read_table(path / shard.file).to_pylist()
    change(rows[0])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path / shard.file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_frames": 3}, "bytes do not hold 3 x 5 float16"),
        ({"num_features": -5, "num_frames": -1}, "bytes do not hold"),
        ({"feature_dtype": "object"}, "unknown feature dtype 'object'"),
        ({"labels": [0, 3]}, r"a label id lies outside 0\.\.2"),
        ({"labels": [-1]}, r"a label id lies outside 0\.\.2"),
        ({"alignment": [0]}, "labels or alignment do not fit"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(tmp_path, change, message):
    location = Location(str(tmp_path))
    shard = write(location, make_rows(3, seed=5))
    rewrite(tmp_path, shard, lambda row: row.update(change))
    with pytest.raises(PipelineError, match=message):
        read_rows(location, shard, inventory=INVENTORY)


@pytest.mark.parametrize("version", ["2", "none"])
def test_other_schema_versions_are_refused(tmp_path, version):
    location = Location(str(tmp_path))
    shard = write(location, make_rows())
    metadata = {} if version == "none" else {"spikeline_schema_version": version}
    rewrite(tmp_path, shard, lambda row: None, SHARD_SCHEMA.with_metadata(metadata))
    with pytest.raises(PipelineError, match=f"schema version {version} and this version reads 1"):
        read_rows(location, shard)


def test_other_columns_are_refused(tmp_path):
    location = Location(str(tmp_path))
    shard = write(location, make_rows())
    table = pq.read_table(tmp_path / shard.file).drop_columns(["text"])
    pq.write_table(table, tmp_path / shard.file)
    with pytest.raises(PipelineError, match="its columns are not the schema's"):
        read_rows(location, shard)


def test_counts_that_are_not_the_manifests_are_refused(tmp_path):
    location = Location(str(tmp_path))
    shard = write(location, make_rows()).model_copy(update={"num_utterances": 21})
    for reader in (
        lambda: index_shard(location, shard),
        lambda: list(read_columns(location, manifest_of([shard]), ["train"], ["text"])),
    ):
        with pytest.raises(PipelineError, match="its counts are not the manifest's"):
            reader()


def test_what_the_stored_precision_cannot_hold_is_not_written(tmp_path):
    row = make_rows(1)[0]
    large = replace(row, features=np.full((2, 5), 1e5, dtype=np.float32))
    pack_row(large, "float32")
    with (
        pytest.warns(RuntimeWarning, match="overflow"),
        pytest.raises(ValueError, match="not finite in float16"),
    ):
        pack_row(large, "float16")
    with pytest.raises(ValueError, match="at least one row"):
        write_shard(Location(str(tmp_path)), "shard-0.parquet", "train", [], 8)
    assert not list(tmp_path.iterdir())


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 7))
@settings(max_examples=25, deadline=None)
def test_numbered_rows_are_those_of_the_whole_order(tmp_path_factory, start, stop, step):
    location = Location(str(tmp_path_factory.mktemp("numbered")))
    rows = make_rows(27)
    parts = (rows[:9], rows[9:10], rows[10:])
    shards = [
        write(location, part, file=f"shard-{n}.parquet", row_group_size=4)
        for n, part in enumerate(parts)
    ]
    manifest = manifest_of(shards)
    names = [row.utterance_id for row in iter_rows(location, manifest, ["train"])]
    numbers = range(start, min(stop, len(names)), step)
    found = [row.utterance_id for row in read_numbered(location, manifest, ["train"], numbers)]
    assert found == names[start : numbers.stop : step]
