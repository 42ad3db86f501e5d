"""The index beside the shards says what the rows say, whether written or read from the shards."""

import numpy as np
import pytest

from featurize.featurize import featurize
from featurize.labels import frames_needed
from featurize.schema import INDEX_NAME, FeaturizeManifest
from featurize.shards import read_rows
from featurize.stage import FanOut, Location, PipelineError, read_manifest
from featurize.utterance_index import read_index_of
from tests.harness import tiny
from training.split_index import index_split
from training.train_config import TrainConfig


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    root = tmp_path_factory.mktemp("index")
    corpus = Location.of(tiny.make_corpus(root / "corpus"))
    config = tiny.FEATURES.model_copy(update={"utterances_per_shard": 5, "row_group_size": 2})
    runs = Location.of(root / "runs")
    return featurize(config, corpus, runs, fan_out=FanOut(kind="sequential")).location


def without_index(manifest):
    """The manifest of a set made by a version that wrote none."""
    checksums = {name: c for name, c in manifest.checksums.items() if name != INDEX_NAME}
    return manifest.model_copy(update={"checksums": checksums})


def test_the_index_is_what_the_rows_say(features):
    manifest = read_manifest(features, FeaturizeManifest)
    assert INDEX_NAME in manifest.checksums
    numbers = [number for number in range(len(manifest.shards)) if number != 1]
    assert len(numbers) > 2
    table = read_index_of(features, manifest, numbers)
    assert table.equals(read_index_of(features, without_index(manifest), numbers))
    rows = [row for number in numbers for row in read_rows(features, manifest.shards[number])]
    assert table["num_frames"].to_pylist() == [len(row.features) for row in rows]
    assert table["num_labels"].to_pylist() == [len(row.labels) for row in rows]
    assert table["frames_needed"].to_pylist() == [frames_needed(row.labels) for row in rows]
    # Equal neighbours within an utterance count, or this would say nothing of frames_needed.
    assert table["frames_needed"].to_pylist() != table["num_labels"].to_pylist()
    assert table["is_aligned"].to_pylist() == [row.alignment is not None for row in rows]


def test_every_utterance_of_a_split_is_found_at_its_place(features):
    manifest = read_manifest(features, FeaturizeManifest)
    index = index_split(features, manifest, "train", TrainConfig())
    names = set()
    for number in range(len(index)):
        shard, row_group, row = index.place(number)
        found = read_rows(features, manifest.shards[shard], [row_group])[row]
        assert found.subset in manifest.splits["train"]
        assert len(found.features) == index.num_frames_N[number]
        assert len(found.labels) == index.num_targets_N[number]
        names.add(found.utterance_id)
    train = (manifest.subsets[name].num_utterances for name in manifest.splits["train"])
    assert len(names) == len(index) == sum(train)


def test_a_training_worker_keeps_few_bytes_an_utterance(features):
    manifest = read_manifest(features, FeaturizeManifest)
    index = index_split(features, manifest, "train", TrainConfig())
    arrays = [value for value in vars(index).values() if isinstance(value, np.ndarray)]
    assert sum(array.nbytes for array in arrays) <= 24 * len(index)


def test_a_damaged_index_is_named(features, tmp_path):
    manifest = read_manifest(features, FeaturizeManifest)
    file = features.child(INDEX_NAME)
    content = file.read_bytes()
    try:
        file.write_bytes(content[:-9] + b"x" + content[-8:])
        with pytest.raises(PipelineError, match=r"index\.parquet.* is damaged.*spikeline repair"):
            read_index_of(features, manifest, [0])
    finally:
        file.write_bytes(content)
