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


@dataclass
class _Tally:
    """Counts of an alignment while it is written."""

    row_shift_s: float
    score: float = 0.0
    num_rows: int = 0
    num_silent_rows: int = 0
    num_phones: int = 0

    def add(self, found: AlignedLabels, silent_targets: list[int], silences: list[int]) -> None:
        """Take in an utterance."""
        self.score += found.score * len(found.alignment_T)
        self.num_rows += len(found.alignment_T)
        self.num_silent_rows += int(np.isin(found.alignment_T, silent_targets).sum())
        self.num_phones += int((~np.isin(found.labels_P, silences)).sum())

    def summary(self, features: str, config: AlignConfig) -> AlignmentInfo:
        """What the manifest says of the alignment."""
        voiced_s = (self.num_rows - self.num_silent_rows) * self.row_shift_s
        return AlignmentInfo(
            features=features,
            config=config.model_dump(mode="json"),
            log_likelihood=self.score / self.num_rows,
            silence_share=self.num_silent_rows / self.num_rows,
            mean_phone_s=voiced_s / max(1, self.num_phones),
        )


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
    tally = _Tally(job.manifest.frame_shift_s)
    shards: list[ShardInfo] = []
    index = []
    rejects: list[Reject] = []
    num_samples: Counter[str] = Counter()
    speakers: dict[str, set[str]] = {subset: set() for subset in job.manifest.subsets}
    for number, shard in enumerate(job.manifest.shards):
        job.tell("aligning", number, len(job.manifest.shards))
        packed = []
        rows = read_rows(
            job.features,
            shard,
            inventory=job.manifest.labels,
            states=job.manifest.states,
        )
        for row, found in zip(rows, aligner(rows), strict=True):
            if isinstance(found, Unaligned):
                rejects.append(Reject(row.utterance_id, row.subset, "", found.reason, found.detail))
                continue
            tally.add(found, silent_targets(job.labels, states), silent_symbols(job.labels))
            packed.append(pack_row(_with_targets(row, found), _dtype(row)))
            num_samples[row.subset] += row.num_samples
            speakers[row.subset].add(row.speaker_id)
        if packed:
            group_size = int(str(job.manifest.config["row_group_size"]))
            file = f"{SHARDS_FOLDER}/{shard.file.rpartition('/')[2]}"
            info = write_shard(target, file, shard.subset, packed, group_size)
            shards.append(info)
            index.append(index_shard(target, info))
    write_index(target, index)
    write_rejects(target, rejects)
    rate = job.manifest.sample_rate_hz
    subsets = {
        subset: _subset_info(shards, subset, speakers[subset], num_samples[subset] / rate)
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
    return _manifest(job, name, tuple(shards), subsets, rejects, tally, states)


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
    tally: _Tally,
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
            "aligned": tally.summary(job.features.uri, job.config),
            "states": states,
        }
    )


def _with_targets(row: FeatureRow, found: AlignedLabels) -> FeatureRow:
    return replace(row, labels=found.labels_P, alignment=found.alignment_T)


def _dtype(row: FeatureRow) -> FeatureDtype:
    return "float16" if row.features.dtype.itemsize == 2 else "float32"


def _subset_info(
    shards: Sequence[ShardInfo], subset: str, speakers: set[str], seconds: float
) -> SubsetInfo:
    own = [shard for shard in shards if shard.subset == subset]
    return SubsetInfo(
        num_utterances=sum(shard.num_utterances for shard in own),
        num_speakers=len(speakers),
        num_frames=sum(shard.num_frames for shard in own),
        hours=seconds / 3600,
    )
