"""Writing an aligned feature set: every utterance with its frame targets, and the manifest."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from functools import partial

import numpy as np

from featurize.rejects import (
    REJECTS_NAME,
    Reject,
    check_reject_share,
    check_sums,
    count_rejects,
    read_reject_counts,
    write_rejects,
)
from featurize.schema import (
    SCHEMA_VERSION,
    AlignmentInfo,
    FeaturizeManifest,
    ShardInfo,
    StateInventory,
    SubsetInfo,
)
from featurize.stage import (
    FanOut,
    Location,
    PipelineError,
    WorkerPool,
    read_manifest,
    software_versions,
    timestamp,
    worker_pool,
)
from featurize.utterance_index import write_index
from training.align.align_config import AlignConfig
from training.align.flat_start import GaussianModel
from training.align.job import AlignJob
from training.align.shards import (
    AlignedShard,
    AlignedUtterance,
    ShardWork,
    ThinningWork,
    align_shard,
    remove_whole_shards,
    thin_shard,
)

STAGE = "align"
MIN_JUDGED = 5
"""Utterances of a speaker by whose scores one of them can be called poor."""


def write_aligned(
    job: AlignJob,
    target: Location,
    name: str,
    model: GaussianModel | None,
    states: StateInventory | None,
    fan_out: FanOut,
) -> FeaturizeManifest:
    """Align every utterance, write the feature set, and say what it holds.

    Args:
        model: what scores frames; None where TextGrids say all.
        states: what the frame targets are; None for the phones themselves.
    """
    with worker_pool(fan_out) as pool:
        works = [
            ShardWork(
                job.config,
                job.features,
                job.manifest.manifest_sha256,
                target,
                shard,
                model,
                states,
                pool.is_apart,
            )
            for shard in job.manifest.shards
        ]
        shards = pool.run_all(align_shard, works, partial(job.tell, "aligning"))
        deviations = _deviations([u for shard in shards for u in shard.aligned])
        poor = {u for u, value in deviations.items() if value > job.config.poor_deviations}
        shards = _thinned(job, pool, works, shards, deviations)
    aligned = [u for shard in shards for u in shard.aligned]
    rejects = [reject for shard in shards for reject in shard.rejects]
    infos = tuple(shard.info for shard in shards if shard.info is not None)
    write_index(target, [shard.index for shard in shards if shard.index is not None])
    write_rejects(target, rejects)
    subsets = {}
    for subset in job.manifest.subsets:
        own = [u for u in aligned if u.subset == subset]
        seconds = sum(u.num_samples for u in own) / job.manifest.sample_rate_hz
        num_speakers = len({u.speaker_id for u in own})
        subsets[subset] = SubsetInfo.of(subset, infos, num_speakers, seconds)
    empty = [subset for subset, info in subsets.items() if not info.num_utterances]
    if empty:
        first = next((reject for reject in rejects if reject.subset == empty[0]), None)
        why = "it has none" if first is None else f"{first.reason}: {first.detail}"
        raise PipelineError(
            f"no utterance of subset {empty[0]!r} could be aligned ({why}); "
            f"{target.child(REJECTS_NAME)} lists each that was left out"
        )
    counts = count_rejects(rejects)
    kept = _num_utterances(subsets)
    check_sums(target, _num_utterances(job.manifest.subsets), kept, counts)
    check_reject_share(target, job.manifest.splits, kept, counts, job.config.max_reject_share)
    guessed = {word: " ".join(said) for s in shards for word, said in s.guessed.items()}
    info = _alignment_info(job, aligned, poor & {u.utterance_id for u in aligned}, guessed)
    return _manifest(job, name, infos, subsets, rejects, info, states)


def _deviations(aligned: Sequence[AlignedUtterance]) -> dict[str, float]:
    """How far each utterance's score lies below its speaker's median.

    In standard deviations of scores about their speaker's, as 1.4826 times the median distance.
    Speakers of whom there are few utterances are not judged: 0.
    """
    speakers: dict[str, list[float]] = {}
    for utterance in aligned:
        speakers.setdefault(utterance.speaker_id, []).append(utterance.score)
    medians = {
        speaker: float(np.median(scores))
        for speaker, scores in speakers.items()
        if len(scores) >= MIN_JUDGED
    }
    below = {
        u.utterance_id: medians[u.speaker_id] - u.score for u in aligned if u.speaker_id in medians
    }
    spread = 1.4826 * float(np.median(np.abs(list(below.values())))) if below else 0.0
    return {u.utterance_id: below.get(u.utterance_id, 0.0) / (spread or np.inf) for u in aligned}


def _thinned(
    job: AlignJob,
    pool: WorkerPool,
    works: Sequence[ShardWork],
    shards: Sequence[AlignedShard],
    deviations: Mapping[str, float],
) -> list[AlignedShard]:
    """The shards less the utterances that are aligned too badly."""
    bound = job.config.max_deviations
    thinnings = {}
    for number, (work, shard) in enumerate(zip(works, shards, strict=True)):
        left_out = {
            u.utterance_id: f"{u.score:.1f} a frame, {deviations[u.utterance_id]:.1f} deviations "
            f"below its speaker's median; at most {bound:g} are kept"
            for u in shard.aligned
            if deviations[u.utterance_id] > bound
        }
        if left_out:
            thinnings[number] = ThinningWork(replace(work, model=None), shard, left_out)
    found = pool.run_all(thin_shard, list(thinnings.values()))
    remove_whole_shards(thinnings.values())
    thinned = dict(zip(thinnings, found, strict=True))
    return [thinned.get(number, shard) for number, shard in enumerate(shards)]


def _alignment_info(
    job: AlignJob, aligned: Sequence[AlignedUtterance], poor: Set[str], guessed: Mapping[str, str]
) -> AlignmentInfo:
    """What the manifest says of the alignment."""
    num_rows = sum(u.num_rows for u in aligned)
    num_silent = sum(u.num_silent_rows for u in aligned)
    voiced_s = (num_rows - num_silent) * job.manifest.frame_shift_s
    return AlignmentInfo(
        features=job.features.uri,
        config=job.config.model_dump(mode="json"),
        log_likelihood=sum(u.score * u.num_rows for u in aligned) / num_rows,
        silence_share=num_silent / num_rows,
        mean_phone_s=voiced_s / max(1, sum(u.num_phones for u in aligned)),
        poor=tuple(sorted(poor)),
        guessed=dict(sorted(guessed.items())),
    )


def _num_utterances(subsets: Mapping[str, SubsetInfo]) -> dict[str, int]:
    return {name: info.num_utterances for name, info in subsets.items()}


def check_aligned(config: AlignConfig, location: Location) -> None:
    """Hold a finished alignment's rejects against this run's share."""
    manifest = read_manifest(location, FeaturizeManifest)
    if manifest.reject_counts:
        kept = _num_utterances(manifest.subsets)
        counts = read_reject_counts(location)
        check_reject_share(location, manifest.splits, kept, counts, config.max_reject_share)


def _manifest(
    job: AlignJob,
    name: str,
    shards: tuple[ShardInfo, ...],
    subsets: dict[str, SubsetInfo],
    rejects: Sequence[Reject],
    info: AlignmentInfo,
    states: StateInventory | None,
) -> FeaturizeManifest:
    return job.manifest.model_copy(
        update={
            "stage": STAGE,
            "schema_version": SCHEMA_VERSION,
            "fingerprint": name,
            "upstream": {"features": job.manifest.fingerprint},
            "created_at": timestamp(),
            "versions": software_versions("spikeline", "numpy", "pyarrow", "torchaudio"),
            "labels": job.labels,
            "subsets": subsets,
            "shards": shards,
            "reject_counts": dict(Counter(str(reject.reason) for reject in rejects)),
            "aligned": info,
            "states": states,
        }
    )
