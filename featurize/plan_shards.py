"""Which utterance goes to which shard, decided before any is made."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from featurize.corpora.entry import CorpusEntry
from featurize.featurize_config import FeaturizeConfig
from featurize.schema import SHARDS_FOLDER
from featurize.speed import at_speed
from featurize.stage import Location

SIDECARS = "unfinished"
"""Folder of what is kept of each finished shard until the feature set is finished."""


@dataclass(frozen=True)
class ShardPlan:
    """Everything a worker needs to make one shard; pickles."""

    number: int  # position in the feature set; names the file
    subset: str
    entries: tuple[CorpusEntry, ...]  # utterances of one subset
    corpus: Location  # where their audio is
    location: Location
    config: FeaturizeConfig
    folder: str = SHARDS_FOLDER  # of the shards below it; empty in feature sets of earlier versions

    @property
    def file(self) -> str:
        """Name of the shard below the location."""
        return "/".join(filter(None, (self.folder, shard_name(self.number))))

    @property
    def sidecar(self) -> Location:
        """Where the result is kept until the whole feature set is finished."""
        return self.location.child(SIDECARS, f"shard-{self.number:05d}.json")


def shard_name(number: int) -> str:
    """A shard's name within its folder."""
    return f"shard-{number:05d}.parquet"


def plan_shards(
    entries: Sequence[CorpusEntry], config: FeaturizeConfig, corpus: Location, location: Location
) -> tuple[ShardPlan, ...]:
    """Assign utterances to shards: per subset a seeded shuffle, cut into equal pieces.

    Shuffled, so that a shard mixes speakers and chapters; a reader that mixes within a few
    shards then sees a fair sample.

    Args:
        entries: sorted by subset; only the configured subsets.
    """
    groups = {name: list(group) for name, group in groupby(entries, key=lambda e: e.subset)}
    plans: list[ShardPlan] = []
    for subset in config.splits.subsets:
        recorded = sorted(groups.get(subset, []), key=lambda entry: entry.utterance_id)
        members = [*recorded]
        if subset in config.splits.train:
            members += [at_speed(entry, f) for f in config.speed_factors for entry in recorded]
        random.Random(f"{config.seed} {subset}").shuffle(members)  # noqa: S311 - no secret
        count = -(-len(members) // config.utterances_per_shard)
        for piece in range(count):
            start, stop = (len(members) * k // count for k in (piece, piece + 1))
            plans.append(
                ShardPlan(
                    number=len(plans),
                    subset=subset,
                    entries=tuple(members[start:stop]),
                    corpus=corpus,
                    location=location,
                    config=config,
                )
            )
    return tuple(plans)
