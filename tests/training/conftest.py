"""A feature set in which each symbol is a mean vector in noise: small, learnable, aligned."""

import numpy as np
import pytest

from featurize.schema import (
    SCHEMA_VERSION,
    CmvnStatistics,
    FeatureRow,
    FeaturizeManifest,
    LabelInventory,
    SubsetInfo,
)
from featurize.shard_writer import pack_row, write_shard
from featurize.stage import Location, software_versions, timestamp
from featurize.stage.manifest import write_manifest

NUM_SYMBOLS, NUM_FEATURES = 5, 8


def planted_rows(subset, count, rng):
    means = np.random.default_rng(99).normal(0, 1.5, (NUM_SYMBOLS, NUM_FEATURES))
    rows = []
    for number in range(count):
        symbols = rng.integers(0, NUM_SYMBOLS, int(rng.integers(2, 7)))
        labels = symbols[np.insert(np.diff(symbols) != 0, 0, True)]
        alignment = np.repeat(labels, rng.integers(3, 7, len(labels))).astype(np.int32)
        features = means[alignment] + rng.normal(0, 1.0, (len(alignment), NUM_FEATURES))
        rows.append(
            FeatureRow(
                utterance_id=f"{subset}-{number:03d}",
                speaker_id=f"s{number % 3}",
                chapter_id="c",
                subset=subset,
                text="",
                labels=labels.astype(np.int32),
                num_samples=160 * len(alignment),
                features=features.astype(np.float32),
                alignment=alignment,
            )
        )
    return rows


@pytest.fixture(scope="session")
def planted_features(tmp_path_factory) -> Location:
    """A finished feature set with 42 training and 11 dev utterances in several shards."""
    location = Location.of(tmp_path_factory.mktemp("planted") / "features")
    rng = np.random.default_rng(0)
    shards, subsets = [], {}
    for subset, sizes in (("train-planted", (17, 25)), ("dev-planted", (11,))):
        rows = planted_rows(subset, sum(sizes), rng)
        subsets[subset] = SubsetInfo(
            num_utterances=len(rows),
            num_speakers=3,
            num_frames=sum(len(row.features) for row in rows),
            hours=0.01,
        )
        for number, size in enumerate(sizes):
            part, rows = rows[:size], rows[size:]
            packed = [pack_row(row, "float32") for row in part]
            shards.append(write_shard(location, f"{subset}-{number}.parquet", subset, packed, 4))
    write_manifest(
        location,
        FeaturizeManifest(
            stage="featurize",
            schema_version=SCHEMA_VERSION,
            fingerprint="planted",
            created_at=timestamp(),
            versions=software_versions("numpy"),
            config={},
            corpus_digest="planted",
            splits={"train": ("train-planted",), "dev": ("dev-planted",), "test": ("dev-planted",)},
            sample_rate_hz=16000,
            frame_shift_s=0.01,
            num_features=NUM_FEATURES,
            labels=LabelInventory(
                kind="alignment", symbols=tuple("abcde"), scored_as=tuple("abcde")
            ),
            cmvn=CmvnStatistics(mode="none", mean=(0.0,) * 8, std=(1.0,) * 8),
            subsets=subsets,
            shards=tuple(shards),
            reject_counts={},
            num_resampled=0,
        ),
    )
    return location
