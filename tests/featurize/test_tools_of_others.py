"""A feature set opens as it is in tools that know nothing of this project."""

import numpy as np
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from featurize.featurize import featurize
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.schema import SHARD_SCHEMA, FeaturizeManifest
from featurize.shards import iter_rows
from featurize.stage import Location, read_manifest


@pytest.fixture(scope="module")
def feature_set(synthetic_corpus, tmp_path_factory):
    """A feature set of several shards, its rows by our own reader, and the folder to open."""
    splits = SplitsConfig(train=("train-synthetic",), dev=("dev-synthetic",))
    config = FeaturizeConfig(splits=splits, utterances_per_shard=5)
    runs = Location.of(tmp_path_factory.mktemp("runs"))
    location = featurize(config, Location.of(synthetic_corpus / "librispeech"), runs).location
    manifest = read_manifest(location, FeaturizeManifest)
    assert len(manifest.shards) > 2
    rows = {row.utterance_id: row for row in iter_rows(location, manifest, splits.subsets)}
    return location.child("shards").path, rows


def decoded(row):
    """The five lines of the documentation."""
    dtype = {"float16": "<f2", "float32": "<f4"}[row["feature_dtype"]]
    return np.frombuffer(row["features"], dtype).reshape(row["num_frames"], row["num_features"])


def assert_same(found, rows):
    found = {row["utterance_id"]: row for row in found}
    assert found.keys() == rows.keys()
    for name, row in rows.items():
        assert found[name]["text"] == row.text
        assert list(found[name]["labels"]) == list(row.labels)
        assert np.array_equal(decoded(found[name]), row.features)


def test_pyarrow(feature_set):
    folder, rows = feature_set
    dataset = pyarrow.dataset.dataset(folder)
    assert dataset.schema.equals(SHARD_SCHEMA)
    assert_same(dataset.to_table().to_pylist(), rows)
    assert pq.read_table(folder).num_rows == len(rows)


def test_pandas(feature_set):
    pandas = pytest.importorskip("pandas")
    folder, rows = feature_set
    assert_same(pandas.read_parquet(folder).to_dict("records"), rows)


def test_duckdb(feature_set):
    duckdb = pytest.importorskip("duckdb")
    folder, rows = feature_set
    table = duckdb.sql(f"SELECT * FROM '{folder}/*.parquet'").to_arrow_table()
    assert_same(table.to_pylist(), rows)
    seconds = duckdb.sql(
        f"SELECT subset, sum(num_samples) / 16000 FROM '{folder}/*.parquet' GROUP BY subset"
    ).fetchall()
    expected = {}
    for row in rows.values():
        expected[row.subset] = expected.get(row.subset, 0) + row.num_samples / 16000
    assert dict(seconds) == pytest.approx(expected)


def test_hugging_face_datasets(feature_set, tmp_path):
    datasets = pytest.importorskip("datasets")
    folder, rows = feature_set
    loaded = datasets.load_dataset(folder, split="train", cache_dir=str(tmp_path))
    assert_same(loaded, rows)
