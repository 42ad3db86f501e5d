"""The utterances of a split: where they are, which a training uses, and which it leaves out."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurize.schema import FeaturizeManifest
from featurize.stage import Location, PipelineError
from featurize.utterance_index import read_index_of
from training.manifest import EpochMetrics, SubsetUse
from training.train_config import TrainConfig

logger = logging.getLogger(__name__)

MAX_UNUSED_SHARE = 0.01
"""Of a split's utterances, that a training may leave out."""

UnusedReason = Literal["too_many_labels", "longer_than_curriculum", "shorter_than_delay"]
"""Why a training learns nothing from an utterance: CTC cannot fit its labels into its frames; CTC
on whole utterances, and no stage of the curriculum takes one of this length; it ends before the
delay of its first target is over."""

_NUMBERS = {reason: number for number, reason in enumerate(get_args(UnusedReason), start=1)}
_REMEDIES: Mapping[str, str] = {
    "too_many_labels": "have more labels than CTC fits into their frames (featurize with a shorter "
    "frame_shift_s or stride, or use objective=frame)",
    "longer_than_curriculum": "are longer than chunk_frames of every stage of the curriculum "
    "(leave it out of the last stage, or raise it)",
    "shorter_than_delay": "have no more frames than target_delay (use a smaller one)",
}


@dataclass(frozen=True, eq=False)
class SplitIndex:
    """The utterances of a split, in shard order: at most 17 bytes each.

    Those with more labels than CTC fits are not in it; for the others that nothing is learnt from,
    see :class:`training.batch_plan.EpochPlan` and :func:`training.batching.delayed`.

    Shape legend: N utterances, G row groups.
    """

    # of each row group, its shard's number in the manifest and its number there
    groups_G2: NDArray[np.int32]
    group_N: NDArray[np.int32]  # of each utterance, its row group
    row_N: NDArray[np.int32]  # its row within that
    num_frames_N: NDArray[np.int32]  # T
    num_targets_N: NDArray[np.int32]  # labels for CTC, frames for the frame objective
    use: Mapping[str, SubsetUse]  # what becomes of the utterances of each subset

    def __len__(self) -> int:
        """N."""
        return len(self.group_N)

    def place(self, number: int) -> tuple[int, int, int]:
        """Shard, row group and row of an utterance."""
        shard, row_group = self.groups_G2[self.group_N[number]].tolist()
        return shard, row_group, int(self.row_N[number])


def index_split(
    features: Location, manifest: FeaturizeManifest, split: str, config: TrainConfig
) -> SplitIndex:
    """Index a split by the feature set's own index, without reading features."""
    subsets = set(manifest.splits.get(split, ()))
    shards = [number for number, info in enumerate(manifest.shards) if info.subset in subsets]
    table = read_index_of(features, manifest, shards)
    shard_N = np.repeat(
        np.array(shards, np.int32), [manifest.shards[number].num_utterances for number in shards]
    )
    if config.objective == "frame":
        _check_aligned(manifest, table, shard_N)
    unused_N = _unused(table, split, config)
    use = _use(manifest, subsets, shard_N, unused_N)
    index = _index(table, shard_N, unused_N, config, use)
    del table
    pa.default_memory_pool().release_unused()  # or it would keep what reading the index took
    _check_use(features, split, use)
    return index


def _check_aligned(
    manifest: FeaturizeManifest, table: pa.Table, shard_N: NDArray[np.int32]
) -> None:
    unaligned = np.flatnonzero(~table["is_aligned"].to_numpy())
    if len(unaligned):
        file = manifest.shards[shard_N[unaligned[0]]].file
        raise PipelineError(
            f"objective=frame needs alignments and {file} has none; featurize with "
            "labels=alignment, or use objective=ctc"
        )


def _unused(table: pa.Table, split: str, config: TrainConfig) -> NDArray[np.int8]:
    """Of each utterance, the number of its reason from 1, or 0 where it is used; (N,)."""
    num_frames_N = table["num_frames"].to_numpy()
    unused_N = np.zeros(len(table), np.int8)
    if config.objective == "frame":
        unused_N[num_frames_N <= (config.target_delay or 0)] = _NUMBERS["shorter_than_delay"]
        return unused_N
    lengths = [stage.chunk_frames for stage in config.curriculum]
    longest = max((length for length in lengths if length is not None), default=None)
    if split == "train" and None not in lengths and longest is not None:
        unused_N[num_frames_N > longest] = _NUMBERS["longer_than_curriculum"]
    unused_N[table["frames_needed"].to_numpy() > num_frames_N] = _NUMBERS["too_many_labels"]
    return unused_N


def _use(
    manifest: FeaturizeManifest,
    subsets: set[str],
    shard_N: NDArray[np.int32],
    unused_N: NDArray[np.int8],
) -> dict[str, SubsetUse]:
    names = list(_NUMBERS)
    left_out: dict[str, Counter[str]] = {subset: Counter() for subset in subsets}
    for number in np.flatnonzero(unused_N):
        left_out[manifest.shards[shard_N[number]].subset][names[unused_N[number] - 1]] += 1
    given: Counter[str] = Counter()
    for info in manifest.shards:
        given[info.subset] += info.num_utterances
    return {
        subset: SubsetUse(
            num_utterances=given[subset],
            num_used=given[subset] - left_out[subset].total(),
            left_out=dict(left_out[subset]),
        )
        for subset in sorted(subsets)
    }


def _index(
    table: pa.Table,
    shard_N: NDArray[np.int32],
    unused_N: NDArray[np.int8],
    config: TrainConfig,
    use: Mapping[str, SubsetUse],
) -> SplitIndex:
    total = len(table)
    row_group_N, num_frames_N = table["row_group"].to_numpy(), table["num_frames"].to_numpy()
    is_first_N = np.ones(total, np.bool_)
    is_first_N[1:] = (np.diff(shard_N) != 0) | (np.diff(row_group_N) != 0)
    firsts = np.flatnonzero(is_first_N)
    groups_G2 = np.stack([shard_N[firsts], row_group_N[firsts]], axis=1)
    group_N = np.cumsum(is_first_N, dtype=np.int32) - np.int32(1)
    row_N = np.arange(total, dtype=np.int32) - firsts.astype(np.int32)[group_N]
    fits_N = unused_N != _NUMBERS["too_many_labels"]
    frames_N = num_frames_N[fits_N]
    is_frame = config.objective == "frame"
    # One array serves as both: millions of utterances are held by every worker.
    targets_N = frames_N if is_frame else table["num_labels"].to_numpy()[fits_N]
    return SplitIndex(groups_G2, group_N[fits_N], row_N[fits_N], frames_N, targets_N, use)


def _check_use(features: Location, split: str, use: Mapping[str, SubsetUse]) -> None:
    """Hold what is left out of a split against the share that may be."""
    total = sum(subset.num_utterances for subset in use.values())
    left_out = Counter[str]()
    for subset in use.values():
        left_out.update(subset.left_out)
    if left_out.total() > MAX_UNUSED_SHARE * total:
        reasons = "; ".join(f"{n} {_REMEDIES[reason]}" for reason, n in left_out.most_common())
        raise PipelineError(
            f"{left_out.total()} of {total} utterances of {split} cannot be trained on, more than "
            f"{MAX_UNUSED_SHARE:.0%}: {reasons}"
        )
    if not total:
        raise PipelineError(f"the {split} split of {features} has no usable utterance")


def used_utterances(
    features: Location, manifest: FeaturizeManifest, config: TrainConfig
) -> dict[str, SubsetUse]:
    """What a training does with the utterances of each subset of train and dev."""
    found: dict[str, SubsetUse] = {}
    for split in ("train", "dev"):
        found |= index_split(features, manifest, split, config).use
    for subset, use in found.items():
        for reason, count in use.left_out.items():
            logger.warning(
                "%s: nothing is learnt from %d of %d utterances, which %s",
                subset,
                count,
                use.num_utterances,
                _REMEDIES[reason],
            )
    return found


def check_epochs(index: SplitIndex, config: TrainConfig, epochs: Sequence[EpochMetrics]) -> None:
    """Hold the utterances that each epoch has trained on against those of the split."""
    for metrics in epochs:
        limit = config.chunk_frames(metrics.epoch)
        expected = len(index)
        if config.objective == "ctc" and limit is not None:
            expected = int((index.num_frames_N <= limit).sum())
        if metrics.num_utterances != expected:
            raise PipelineError(
                f"epoch {metrics.epoch + 1} was trained on {metrics.num_utterances} utterances in "
                f"place of {expected}; verify the features, and train again with --force"
            )
