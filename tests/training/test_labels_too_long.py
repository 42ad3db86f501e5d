from dataclasses import replace

import numpy as np
import pytest

from featurize.schema import FeaturizeManifest
from featurize.shard_writer import pack_row, write_shard
from featurize.stage import Location, PipelineError, read_manifest
from tests.training.conftest import planted_rows
from training.manifest import SubsetUse
from training.split_index import index_split
from training.train_config import TrainConfig


@pytest.fixture
def split_with(planted_features, tmp_path):
    """The train split of some utterances, the first few with more labels than frames."""
    manifest = read_manifest(planted_features, FeaturizeManifest)

    def index(num_utterances, num_too_short):
        target = Location.of(tmp_path / "features")
        rows = planted_rows("train-planted", num_utterances, np.random.default_rng(0))
        for number in range(num_too_short):
            labels = np.zeros(len(rows[number].features) + 1, np.int32)
            rows[number] = replace(rows[number], labels=labels)
        packed = [pack_row(row, "float32") for row in rows]
        shard = write_shard(target, "train.parquet", "train-planted", packed, 4)
        return index_split(
            target, manifest.model_copy(update={"shards": (shard,)}), "train", TrainConfig()
        )

    return index


def test_few_utterances_that_ctc_cannot_fit_are_left_out_and_counted(split_with):
    found = split_with(100, 1)
    use = SubsetUse(num_utterances=100, num_used=99, left_out={"too_many_labels": 1})
    assert (found.use, len(found)) == ({"train-planted": use}, 99)


def test_many_are_no_training(split_with):
    with pytest.raises(
        PipelineError, match=r"2 of 100 utterances of train cannot .*: 2 have more labels"
    ):
        split_with(100, 2)
