"""The featurize stage: plan, make the shards, finish.

``featurize`` does all three; a flow calls the parts, so that each shard is a task of its own:
``plan_featurize`` scans the corpus, ``make_shard`` (its own module) makes one shard,
``finish_featurize`` writes the rejects and returns the manifest.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from featurize.cmudict import CMUDICT_RELEASE
from featurize.cmvn import cmvn_statistics
from featurize.corpora.scan import scan_corpus
from featurize.featurize_config import FeaturizeConfig
from featurize.labels import labeller
from featurize.make_shard import ShardResult, make_shard, read_sidecar
from featurize.moments import RunningMoments
from featurize.plan_shards import ShardPlan, plan_shards
from featurize.rejects import (
    REJECTS_NAME,
    Reject,
    RejectCounts,
    check_reject_share,
    check_sums,
    count_rejects,
    read_reject_counts,
    write_rejects,
)
from featurize.schema import SCHEMA_VERSION, FeaturizeManifest, SubsetInfo
from featurize.stage import (
    FanOut,
    Location,
    PipelineError,
    Progress,
    StageResult,
    fingerprint,
    read_manifest,
    run_fan_out,
    run_stage,
    software_versions,
    timestamp,
)
from featurize.utterance_index import INDEX_SCHEMA, write_index

STAGE = "featurize"
STAGE_VERSION = 1
"""Raised whenever the same configuration and corpus would give other features or labels."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeaturizePlan:
    """A scanned corpus, cut into shards; pickles."""

    config: FeaturizeConfig
    fingerprint: str
    location: Location  # where the feature set goes: ``<runs>/featurize/<fingerprint>``
    corpus: Location  # the corpus as it was named; archives are unpacked elsewhere
    corpus_digest: str
    rejects: tuple[Reject, ...]  # utterances the scan already found unusable
    shards: tuple[ShardPlan, ...]


def plan_featurize(config: FeaturizeConfig, corpus: Location, runs: Location) -> FeaturizePlan:
    """Scan the corpus, name the result and assign utterances to shards.

    Raises:
        PipelineError: when the corpus, a subset of it or the lexicon cannot be read, or a split
            has no usable transcript at all.
    """
    listing = scan_corpus(config.corpus, corpus, config.splits.subsets, config.speaker_subsets)
    found = Counter(entry.subset for entry in listing.entries)
    rejected = Counter(reject.subset for reject in listing.rejects)
    for subset in config.splits.subsets:
        if not found[subset] and not rejected[subset]:
            raise PipelineError(
                f"subset {subset!r} of {corpus} has no utterances; check the corpus, or the "
                "subset names in splits"
            )
    name = fingerprint(
        {
            "stage": STAGE,
            "stage_version": STAGE_VERSION,
            "schema_version": SCHEMA_VERSION,
            "config": config,
            "corpus_digest": listing.digest,
            "lexicon": _lexicon_digest(config),
        }
    )
    location = runs.child(STAGE, name)
    return FeaturizePlan(
        config=config,
        fingerprint=name,
        location=location,
        corpus=corpus,
        corpus_digest=listing.digest,
        rejects=listing.rejects,
        shards=plan_shards(listing.entries, config, listing.root, location),
    )


def finish_featurize(plan: FeaturizePlan, results: Sequence[ShardResult]) -> FeaturizeManifest:
    """Write the rejects, check their number, write the index, and describe the feature set.

    Args:
        results: one per planned shard, in the plan's order.

    Raises:
        PipelineError: when too many utterances were rejected or a subset has none left; the
            rejects are written by then.
    """
    rejects = [*plan.rejects, *(reject for result in results for reject in result.rejects)]
    write_rejects(plan.location, sorted(rejects, key=place_among_rejects))
    counts = Counter(str(reject.reason) for reject in rejects)
    train, by_speaker, speakers = _gather_sidecars(plan)
    subsets = {
        name: _subset_info(name, results, speakers[name], plan.config)
        for name in plan.config.splits.subsets
    }
    by_subset = count_rejects(rejects)
    came_in = Counter(reject.subset for reject in plan.rejects)
    for shard in plan.shards:
        came_in[shard.subset] += len(shard.entries)
    kept = {name: info.num_utterances for name, info in subsets.items()}
    check_sums(plan.location, came_in, kept, by_subset)
    _check_rejects(plan.config, plan.location, subsets, by_subset)
    config = plan.config
    missing = sum((Counter(result.out_of_vocabulary) for result in results), Counter[str]())
    shards = tuple(result.shard for result in results if result.shard is not None)
    return FeaturizeManifest(
        stage=STAGE,
        schema_version=SCHEMA_VERSION,
        fingerprint=plan.fingerprint,
        created_at=timestamp(),
        versions=software_versions("spikeline", "numpy", "pyarrow", "soundfile"),
        config=config.model_dump(mode="json"),
        corpus_digest=plan.corpus_digest,
        splits=config.splits.as_dict(),
        sample_rate_hz=config.sample_rate_hz,
        frame_shift_s=config.stored_frame_shift_s,
        num_features=config.num_features,
        labels=labeller(config).inventory,
        cmvn=cmvn_statistics(
            config.cmvn, [train.sums], {name: own.sums for name, own in by_speaker.items()}
        ),
        subsets=subsets,
        shards=shards,
        reject_counts=dict(sorted(counts.items())),
        num_resampled=sum(result.num_resampled for result in results),
        out_of_vocabulary=dict(sorted(missing.items())),
        corpus=plan.corpus.uri,
    )


def featurize(
    config: FeaturizeConfig,
    corpus: Location,
    runs: Location,
    *,
    fan_out: FanOut | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> StageResult:
    """Turn a corpus into feature shards below ``<runs>/featurize/<fingerprint>``.

    Args:
        fan_out: where the shards are made; threads of this machine by default.

    Raises:
        PipelineError: with what to mend; see ``plan_featurize`` and ``finish_featurize``.
    """
    plan = plan_featurize(config, corpus, runs)

    def work(location: Location) -> FeaturizeManifest:
        logger.info("featurizing %d shards into %s", len(plan.shards), location)
        results = run_fan_out(make_shard, plan.shards, fan_out or FanOut(), progress)
        return finish_featurize(plan, results)

    result = run_stage(plan.location, plan.fingerprint, work, force=force)
    if result.skipped:
        check_finished(plan)
    return result


def check_finished(plan: FeaturizePlan) -> FeaturizeManifest:
    """Read a finished feature set's manifest and hold its rejects against this run's share."""
    manifest = read_manifest(plan.location, FeaturizeManifest)
    if manifest.reject_counts:
        counts = read_reject_counts(plan.location)
        _check_rejects(plan.config, plan.location, manifest.subsets, counts)
    return manifest


def place_among_rejects(reject: Reject) -> tuple[str, str, str]:
    """Sort key that gives rejects one order, whatever order the shards were made in."""
    return reject.subset, reject.utterance_id, reject.path


def _lexicon_digest(config: FeaturizeConfig) -> str | None:
    if config.labels != "phones" or config.corpus == "timit":
        return None
    if config.lexicon is None:
        return CMUDICT_RELEASE
    labeller(config)  # a missing or malformed lexicon is refused here, before any work
    return hashlib.sha256(Location.of(config.lexicon).read_bytes()).hexdigest()


def _gather_sidecars(
    plan: FeaturizePlan,
) -> tuple[RunningMoments, dict[str, RunningMoments], dict[str, set[str]]]:
    """Write the index, and add up the moments, one shard's in memory at a time.

    Returns:
        Moments of the train split; of each speaker, where they normalise; speakers by subset.
    """
    splits = plan.config.splits
    # Without a train split nothing is trained here, and a model's own statistics will be used.
    counted = splits.train or splits.subsets
    train = RunningMoments()
    by_speaker: dict[str, RunningMoments] = {}
    speakers: dict[str, set[str]] = {name: set() for name in splits.subsets}
    index = []
    for shard in plan.shards:
        kept = read_sidecar(shard)
        if kept.index:
            index.append(pa.table(kept.index, schema=INDEX_SCHEMA))
        for speaker, moments in kept.moments.items():
            speakers[shard.subset].add(speaker)
            if shard.subset in counted:
                train.add(moments)
            if plan.config.cmvn == "speaker":
                by_speaker.setdefault(speaker, RunningMoments()).add(moments)
    write_index(plan.location, index)
    return train, by_speaker, speakers


def _subset_info(
    subset: str, results: Sequence[ShardResult], speakers: set[str], config: FeaturizeConfig
) -> SubsetInfo:
    num_samples = sum(result.num_samples for result in results if result.subset == subset)
    shards = [result.shard for result in results if result.shard is not None]
    return SubsetInfo.of(subset, shards, len(speakers), num_samples / config.sample_rate_hz)


def _check_rejects(
    config: FeaturizeConfig,
    location: Location,
    subsets: dict[str, SubsetInfo],
    rejects: RejectCounts,
) -> None:
    kept = {name: info.num_utterances for name, info in subsets.items()}
    check_reject_share(location, config.splits.as_dict(), kept, rejects, config.max_reject_share)
    for name, count in kept.items():
        if not count:
            own = Counter({reason: n for (subset, reason), n in rejects.items() if subset == name})
            reasons = ", ".join(f"{reason} {count}" for reason, count in own.most_common(3))
            raise PipelineError(
                f"every utterance of subset {name!r} was rejected; most often: {reasons}. "
                f"{location.child(REJECTS_NAME)} lists each with its reason"
            )
