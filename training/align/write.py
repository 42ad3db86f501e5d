"""Writing an aligned feature set: every utterance with its frame targets, and the manifest."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

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
    SHARDS_FOLDER,
    AlignmentInfo,
    FeatureDtype,
    FeatureRow,
    FeaturizeManifest,
    ShardInfo,
    StateInventory,
    SubsetInfo,
)
from featurize.shard_writer import pack_row, write_shard
from featurize.shards import read_rows
from featurize.stage import Location, PipelineError, read_manifest, software_versions, timestamp
from featurize.utterance_index import index_shard, write_index
from training.align.align_config import AlignConfig
from training.align.job import AlignJob, silent_symbols, silent_targets
from training.align.outcome import AlignedLabels, Unaligned

STAGE = "align"

Aligner = Callable[[Sequence[FeatureRow]], Iterator[AlignedLabels | Unaligned]]
"""Finds the targets of utterances, or says why there are none."""


@dataclass(frozen=True)
class _Aligned:
    """What is kept of an utterance while the shards are written."""

    utterance_id: str
    speaker_id: str
    subset: str
    num_samples: int
    score: float
    num_rows: int
    num_silent_rows: int
    num_phones: int


@dataclass(frozen=True)
class _Shard:
    """A shard that was aligned."""

    info: ShardInfo | None
    aligned: tuple[_Aligned, ...]
    rejects: tuple[Reject, ...]


def write_aligned(
    job: AlignJob, target: Location, name: str, aligner: Aligner, states: StateInventory | None
) -> FeaturizeManifest:
    """Align every utterance, write the feature set, and say what it holds.

    Args:
        job: what is aligned.
        target: where the result goes.
        name: fingerprint of the result.
        aligner: what aligns utterances.
        states: what the frame targets are; None for the phones themselves.
    """
    shards = []
    for number, shard in enumerate(job.manifest.shards):
        job.tell("aligning", number, len(job.manifest.shards))
        shards.append(_write_shard(job, target, shard, aligner, states))
    deviations = _deviations([u for shard in shards for u in shard.aligned])
    poor = {u for u, value in deviations.items() if value > job.config.poor_deviations}
    shards = [_without(job, target, shard, deviations, states) for shard in shards]
    aligned = [u for shard in shards for u in shard.aligned]
    rejects = [reject for shard in shards for reject in shard.rejects]
    infos = tuple(shard.info for shard in shards if shard.info is not None)
    write_index(target, [index_shard(target, info) for info in infos])
    write_rejects(target, rejects)
    subsets = {
        subset: _subset_info(job, infos, [u for u in aligned if u.subset == subset], subset)
        for subset in job.manifest.subsets
    }
    empty = [subset for subset, info in subsets.items() if not info.num_utterances]
    if empty:
        raise PipelineError(
            f"no utterance of subset {empty[0]!r} could be aligned ({rejects[0].reason}: "
            f"{rejects[0].detail}); {target.child(REJECTS_NAME)} lists each"
        )
    counts = count_rejects(rejects)
    kept = _num_utterances(subsets)
    check_sums(target, _num_utterances(job.manifest.subsets), kept, counts)
    check_reject_share(target, job.manifest.splits, kept, counts, job.config.max_reject_share)
    info = _alignment_info(job, aligned, sorted(poor & {u.utterance_id for u in aligned}))
    return _manifest(job, name, infos, subsets, rejects, info, states)


def _write_shard(
    job: AlignJob,
    target: Location,
    shard: ShardInfo,
    aligner: Aligner,
    states: StateInventory | None,
) -> _Shard:
    """Align a shard's utterances and write those that have an alignment."""
    rows = read_rows(job.features, shard, inventory=job.manifest.labels, states=job.manifest.states)
    silent, silences = silent_targets(job.labels, states), silent_symbols(job.labels)
    packed, aligned, rejects = [], [], []
    for row, found in zip(rows, aligner(rows), strict=True):
        if isinstance(found, Unaligned):
            rejects.append(Reject(row.utterance_id, row.subset, "", found.reason, found.detail))
            continue
        packed.append(pack_row(_with_targets(row, found), _dtype(row)))
        aligned.append(
            _Aligned(
                row.utterance_id,
                row.speaker_id,
                row.subset,
                row.num_samples,
                found.score,
                len(found.alignment_T),
                int(np.isin(found.alignment_T, silent).sum()),
                int((~np.isin(found.labels_P, silences)).sum()),
            )
        )
    info = _written(job, target, shard, packed) if packed else None
    return _Shard(info, tuple(aligned), tuple(rejects))


def _written(
    job: AlignJob, target: Location, shard: ShardInfo, packed: list[dict[str, object]]
) -> ShardInfo:
    group_size = int(str(job.manifest.config["row_group_size"]))
    file = f"{SHARDS_FOLDER}/{shard.file.rpartition('/')[2]}"
    return write_shard(target, file, shard.subset, packed, group_size)


def _deviations(aligned: Sequence[_Aligned]) -> dict[str, float]:
    """How far each utterance's score lies below its speaker's median.

    In standard deviations of scores about their speaker's, as 1.4826 times the median distance.
    """
    speakers: dict[str, list[float]] = {}
    for utterance in aligned:
        speakers.setdefault(utterance.speaker_id, []).append(utterance.score)
    medians = {speaker: float(np.median(scores)) for speaker, scores in speakers.items()}
    below = np.array([medians[u.speaker_id] - u.score for u in aligned])
    spread = 1.4826 * float(np.median(np.abs(below))) if len(below) else 0.0
    return {
        u.utterance_id: float(value / spread) if spread else 0.0
        for u, value in zip(aligned, below, strict=True)
    }


def _without(
    job: AlignJob,
    target: Location,
    shard: _Shard,
    deviations: Mapping[str, float],
    states: StateInventory | None,
) -> _Shard:
    """The shard less the utterances that are aligned too badly, written again if there are any."""
    bound = job.config.max_deviations
    left_out = {u.utterance_id for u in shard.aligned if deviations[u.utterance_id] > bound}
    if not left_out or shard.info is None:
        return shard
    rows = read_rows(target, shard.info, inventory=job.labels, states=states)
    packed = [pack_row(row, _dtype(row)) for row in rows if row.utterance_id not in left_out]
    info = _written(job, target, shard.info, packed) if packed else None
    if info is None:
        target.child(shard.info.file).remove()
    rejects = tuple(
        Reject(
            u.utterance_id,
            u.subset,
            "",
            "poor_alignment",
            f"{u.score:.1f} a frame, {deviations[u.utterance_id]:.1f} deviations below its "
            f"speaker's median; at most {bound:g} are kept",
        )
        for u in shard.aligned
        if u.utterance_id in left_out
    )
    kept = tuple(u for u in shard.aligned if u.utterance_id not in left_out)
    return _Shard(info, kept, (*shard.rejects, *rejects))


def _alignment_info(
    job: AlignJob, aligned: Sequence[_Aligned], poor: Sequence[str]
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
        guessed={word: " ".join(said) for word, said in sorted(job.guessed.items())},
        poor=tuple(poor),
    )


def _num_utterances(subsets: Mapping[str, SubsetInfo]) -> dict[str, int]:
    return {name: info.num_utterances for name, info in subsets.items()}


def check_aligned(config: AlignConfig, location: Location) -> None:
    """Hold a finished alignment's rejects against this run's share.

    Raises:
        PipelineError: when it cannot be read, or a split has lost more than that.
    """
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


def _with_targets(row: FeatureRow, found: AlignedLabels) -> FeatureRow:
    return replace(row, labels=found.labels_P, alignment=found.alignment_T)


def _dtype(row: FeatureRow) -> FeatureDtype:
    return "float16" if row.features.dtype.itemsize == 2 else "float32"


def _subset_info(
    job: AlignJob, shards: Sequence[ShardInfo], aligned: Sequence[_Aligned], subset: str
) -> SubsetInfo:
    own = [shard for shard in shards if shard.subset == subset]
    return SubsetInfo(
        num_utterances=sum(shard.num_utterances for shard in own),
        num_speakers=len({u.speaker_id for u in aligned}),
        num_frames=sum(shard.num_frames for shard in own),
        hours=sum(u.num_samples for u in aligned) / job.manifest.sample_rate_hz / 3600,
    )
