"""Looking a feature set over row by row, and redoing single files of it."""

import logging
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace

from pydantic import ValidationError

from featurize.featurize import FeaturizePlan, place_among_rejects, plan_featurize
from featurize.featurize_config import FeaturizeConfig
from featurize.make_shard import make_shard, rejects_of
from featurize.plan_shards import SIDECARS
from featurize.rejects import REJECTS_NAME, Reject, write_rejects
from featurize.schema import SHARDS_FOLDER, FeaturizeManifest
from featurize.shards import checksum_of, read_columns, read_rows
from featurize.stage import Damage, Location, PipelineError

logger = logging.getLogger(__name__)


def inspect_features(location: Location, manifest: FeaturizeManifest) -> Iterator[Damage]:
    """Read every row, and hold rows and counts against the manifest.

    Args:
        location: a feature set whose files have the manifest's checksums.
    """
    seen: set[str] = set()
    counts: Counter[str] = Counter()
    for shard in manifest.shards:
        try:
            rows = read_rows(location, shard, inventory=manifest.labels, states=manifest.states)
        except PipelineError as error:
            yield Damage(shard.file, str(error))
            continue
        names = [row.utterance_id for row in rows]
        counts[shard.subset] += len(rows)
        repeated = sorted(seen.intersection(names))
        if repeated:
            yield Damage(shard.file, f"{repeated[0]} is in two shards")
        if any(row.subset != shard.subset for row in rows):
            yield Damage(shard.file, f"a row is not of subset {shard.subset}")
        seen.update(names)
    for name, subset in manifest.subsets.items():
        if counts[name] != subset.num_utterances:
            problem = f"{counts[name]} utterances of {name} instead of {subset.num_utterances}"
            yield Damage(manifest.shards[0].file if manifest.shards else REJECTS_NAME, problem)


def redo_features(
    location: Location,
    manifest: FeaturizeManifest,
    files: Collection[str],
    corpus: Location | None = None,
) -> FeaturizeManifest:
    """Make some files of a finished feature set again, from the corpus.

    Args:
        location: the feature set; the caller holds its lease.
        files: shards, or the list of rejects.
        corpus: where the corpus stands now; where it stood then if None.

    Returns:
        The manifest, with other checksums where another version of a library now writes the
        same rows as other bytes.
    """
    plan = _plan_again(location, manifest, corpus)
    shards = {shard.file: shard for shard in manifest.shards}
    for shard_plan in plan.shards:
        if shard_plan.file not in files:
            continue
        logger.info("making %s again", shard_plan.file)
        shard_plan.sidecar.remove()
        made = make_shard(shard_plan).shard
        shard_plan.sidecar.remove()
        before = shards[shard_plan.file]
        if made is None or made.num_frames != before.num_frames:
            raise PipelineError(
                f"{location.child(shard_plan.file)} does not come out as it was; something it was "
                "made from has changed; featurize again with --force"
            )
        shards[made.file] = made
    plan.location.child(SIDECARS).remove()
    changed = manifest.model_copy(update={"shards": tuple(shards.values())})
    if REJECTS_NAME in files:
        rejects = _find_rejects(location, changed, plan)
        write_rejects(location, sorted(rejects, key=place_among_rejects))
    sealed = dict(manifest.checksums) | {s.file: checksum_of(s) for s in changed.shards}
    return changed.model_copy(update={"checksums": sealed})


def _plan_again(
    location: Location, manifest: FeaturizeManifest, corpus: Location | None
) -> FeaturizePlan:
    if corpus is None and not manifest.corpus:
        raise PipelineError(f"{location} does not say where its corpus is; name it with --corpus")
    try:
        config = FeaturizeConfig.model_validate(manifest.config)
    except ValidationError as error:
        raise PipelineError(
            f"the configuration in the manifest of {location} is not one this version knows; "
            "featurize again"
        ) from error
    plan = plan_featurize(config, corpus or Location.of(manifest.corpus), location.parent.parent)
    if plan.fingerprint != manifest.fingerprint or plan.location != location:
        raise PipelineError(
            f"the corpus at {plan.corpus} is not what {location} was made from (or the software "
            "is of another version); name the right one with --corpus, or featurize again"
        )
    folder = manifest.shards[0].file.rpartition("/")[0] if manifest.shards else SHARDS_FOLDER
    shards = tuple(replace(shard, folder=folder) for shard in plan.shards)
    return replace(plan, shards=shards)


def _find_rejects(
    location: Location, manifest: FeaturizeManifest, plan: FeaturizePlan
) -> list[Reject]:
    """Find again why each utterance that is in no shard was rejected."""
    tables = read_columns(location, manifest, manifest.subsets, ["utterance_id"])
    kept = {name for table in tables for name in table["utterance_id"].to_pylist()}
    rejects = list(plan.rejects)
    for shard_plan in plan.shards:
        rejects += rejects_of(
            shard_plan, [e for e in shard_plan.entries if e.utterance_id not in kept]
        )
    return rejects
