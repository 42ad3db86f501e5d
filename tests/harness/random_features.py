"""A finished feature set of random frames and targets, written by the real writers."""

import numpy as np

from featurize.schema import (
    SCHEMA_VERSION,
    CmvnStatistics,
    FeatureRow,
    FeaturizeManifest,
    LabelInventory,
    SubsetInfo,
)
from featurize.shard_writer import pack_row, write_shard
from featurize.stage import Location, timestamp

NUM_FEATURES, NUM_SYMBOLS, ROWS_PER_GROUP = 40, 48, 8


def write_random_features(
    target: Location, num_utterances: int, num_frames: int | list[int]
) -> FeaturizeManifest:
    """Write utterances of one length, or of several: all in a shard of train, one of dev."""
    lengths = [num_frames] * num_utterances if isinstance(num_frames, int) else num_frames
    rng = np.random.default_rng(0)
    shards, subsets = [], {}
    for subset, size in (("train", num_utterances), ("dev", 1)):
        rows = [_random_row(f"{subset}-{n:04d}", subset, lengths[n], rng) for n in range(size)]
        packed = [pack_row(row, "float16") for row in rows]
        shards.append(write_shard(target, f"{subset}.parquet", subset, packed, ROWS_PER_GROUP))
        subsets[subset] = SubsetInfo(
            num_utterances=size, num_speakers=1, num_frames=sum(lengths[:size]), hours=0.0
        )
    symbols = tuple(str(number) for number in range(NUM_SYMBOLS))
    zeros, ones = (0.0,) * NUM_FEATURES, (1.0,) * NUM_FEATURES
    return FeaturizeManifest(
        stage="featurize",
        schema_version=SCHEMA_VERSION,
        fingerprint="random",
        created_at=timestamp(),
        versions={},
        config={},
        corpus_digest="random",
        splits={"train": ("train",), "dev": ("dev",), "test": ("dev",)},
        sample_rate_hz=16000,
        frame_shift_s=0.01,
        num_features=NUM_FEATURES,
        labels=LabelInventory(kind="alignment", symbols=symbols, scored_as=symbols),
        cmvn=CmvnStatistics(mode="global", mean=zeros, std=ones),
        subsets=subsets,
        shards=tuple(shards),
        reject_counts={},
        num_resampled=0,
    )


def _random_row(name: str, subset: str, num_frames: int, rng: np.random.Generator) -> FeatureRow:
    alignment = rng.integers(0, NUM_SYMBOLS, num_frames).astype(np.int32)
    return FeatureRow(
        utterance_id=name,
        speaker_id="random",
        chapter_id="random",
        subset=subset,
        text="",
        labels=alignment[::12],  # as many as phones that are heard
        num_samples=160 * num_frames,
        features=rng.normal(size=(num_frames, NUM_FEATURES)).astype(np.float32),
        alignment=alignment,
    )
