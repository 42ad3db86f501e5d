"""Which of the utterances that are scored a model was trained on."""

import pyarrow as pa

from featurize.schema import FeaturizeManifest
from featurize.shards import open_shard, shards_of
from featurize.stage import MANIFEST_NAME, Location, read_manifest
from training.manifest import TrainManifest


def count_heard(
    model: TrainManifest, features: Location, manifest: FeaturizeManifest, subsets: tuple[str, ...]
) -> int | None:
    """Scored utterances that are also in the model's training split, by their names and lengths.

    None where the features that it was trained on are gone and cannot be asked.
    """
    if model.upstream.get("features") == manifest.fingerprint:
        source, trained_on = features, manifest
    else:
        source = Location.of(model.features)
        if not source.child(MANIFEST_NAME).exists():
            return None
        trained_on = read_manifest(source, FeaturizeManifest)
    heard = _names(source, trained_on, trained_on.splits.get("train", ()))
    return len(heard & _names(features, manifest, subsets))


def _names(
    features: Location, manifest: FeaturizeManifest, subsets: tuple[str, ...]
) -> set[tuple[str, int]]:
    names: set[tuple[str, int]] = set()
    for shard in shards_of(manifest, subsets):
        with open_shard(features.child(shard.file), shard) as parquet:
            table: pa.Table = parquet.read(["utterance_id", "num_samples"], use_threads=False)
        names |= set(
            zip(table["utterance_id"].to_pylist(), table["num_samples"].to_pylist(), strict=True)
        )
    return names
