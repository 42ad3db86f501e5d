"""Parts of a corpus and of a feature set, so that a stage meets growing amounts of the same."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from featurize.featurize import FeaturizePlan
from featurize.schema import FeaturizeManifest, ShardInfo, SubsetInfo
from featurize.stage import Location, write_manifest

_ItemT = TypeVar("_ItemT")


def leading(items: Sequence[_ItemT], factor: int, largest: int) -> Sequence[_ItemT]:
    """The first ``factor / largest`` of the items, at least one."""
    return items[: max(1, len(items) * factor // largest)]


def part_of_plan(
    plan: FeaturizePlan, factor: int, largest: int, location: Location
) -> FeaturizePlan:
    """The first shards of each subset, to be made elsewhere; what is in a shard is drawn."""
    kept = [
        shard
        for subset in plan.config.splits.subsets
        for shard in leading([s for s in plan.shards if s.subset == subset], factor, largest)
    ]
    moved = tuple(replace(shard, location=location) for shard in kept)
    return replace(plan, location=location, shards=moved)


def part_of_features(
    features: Location,
    manifest: FeaturizeManifest,
    factors: dict[str, int],
    largest: int,
    target: Location,
) -> FeaturizeManifest:
    """Write a feature set of the first shards of each subset.

    Args:
        features: a finished feature set.
        manifest: its manifest.
        factors: split to its factor; its subsets keep ``factor / largest`` of their shards.
        largest: what the whole is.
        target: where the part goes.
    """
    split_of = {s: split for split, subsets in manifest.splits.items() for s in subsets}
    shards: list[ShardInfo] = []
    subsets: dict[str, SubsetInfo] = {}
    for subset, info in manifest.subsets.items():
        own = [shard for shard in manifest.shards if shard.subset == subset]
        kept = leading(own, factors[split_of[subset]], largest)
        frames = sum(shard.num_frames for shard in kept)
        subsets[subset] = SubsetInfo(
            num_utterances=sum(shard.num_utterances for shard in kept),
            num_speakers=info.num_speakers,
            num_frames=frames,
            hours=info.hours * frames / info.num_frames,
        )
        shards.extend(kept)
    for shard in shards:
        target.child(shard.file).write_bytes(features.child(shard.file).read_bytes())
    name = "-".join(f"{split}{factor}" for split, factor in sorted(factors.items()))
    part = manifest.model_copy(
        update={
            "fingerprint": f"{manifest.fingerprint}-{name}",
            "shards": tuple(shards),
            "subsets": subsets,
            "checksums": {},
        }
    )
    write_manifest(target, part)
    return part


def hours_of(manifest: FeaturizeManifest, *splits: str) -> float:
    """Hours of audio of some splits; of all where none is named."""
    wanted = splits or tuple(manifest.splits)
    names = {name for split in wanted for name in manifest.splits.get(split, ())}
    return sum(info.hours for name, info in manifest.subsets.items() if name in names)
