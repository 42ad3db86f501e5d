"""Aligning one shard: the unit of work that is fanned out.

A worker reads the features where they are, and makes the lexicon and all else of a job once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from featurize.cmvn import Normaliser
from featurize.labels import lexicon_labeller
from featurize.rejects import Reject
from featurize.schema import (
    SHARDS_FOLDER,
    FeatureDtype,
    FeatureRow,
    FeaturizeManifest,
    ShardInfo,
    StateInventory,
)
from featurize.shard_writer import PackedRow, pack_row, write_shard
from featurize.shards import read_rows
from featurize.stage import Location, PipelineError, read_manifest
from featurize.utterance_index import index_shard
from training.align.align_config import AlignConfig
from training.align.flat_start import GaussianModel, in_order
from training.align.graph import PhoneTranscript, best_path, state_graph
from training.align.job import SILENCE, AlignJob, silent_symbols, silent_targets
from training.align.outcome import AlignedLabels, Unaligned
from training.align.stacking import Stacking
from training.align.states import FrameTargets
from training.align.textgrids import TextGrids

Aligner = Callable[[Sequence[FeatureRow]], Iterator[AlignedLabels | Unaligned]]
"""Finds the targets of utterances, or says why there are none."""


@dataclass(frozen=True)
class AlignedUtterance:
    """What is kept of an utterance while the shards are written."""

    utterance_id: str
    speaker_id: str
    subset: str
    num_samples: int
    score: float
    num_rows: int
    num_silent_rows: int
    num_phones: int


@dataclass(frozen=True, eq=False)
class AlignedShard:
    """A shard that was aligned."""

    info: ShardInfo | None  # None where no utterance is left, and no file
    index: pa.Table | None  # its part of the index; None as well
    aligned: tuple[AlignedUtterance, ...]  # its utterances
    rejects: tuple[Reject, ...]  # those that it lost
    # words that the lexicon lacks, and how they were pronounced
    guessed: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class ShardWork:
    """A shard to align; pickles."""

    config: AlignConfig
    features: Location
    features_sha256: str  # of its manifest, by which a worker knows whether it has it
    target: Location  # where the aligned shard goes
    shard: ShardInfo
    model: GaussianModel | None  # what scores frames; None where TextGrids say all
    states: StateInventory | None  # what the frame targets are; None for the phones themselves
    is_apart: bool  # whether this is done in a process of its own, on one core

    @property
    def job(self) -> AlignJob:
        """The run that it belongs to."""
        key = (self.config, self.features_sha256)
        if key not in _jobs:
            manifest = read_manifest(self.features, FeaturizeManifest)
            labeller = lexicon_labeller(manifest)
            _keep(key, AlignJob(self.config, self.features, manifest, labeller, None))
        return _jobs[key]


@dataclass(frozen=True, eq=False)
class ThinningWork:
    """A shard that was aligned, and utterances to be left out of it; pickles."""

    work: ShardWork
    found: AlignedShard  # what came of it
    left_out: Mapping[str, str]  # utterance to why


_Key = tuple[AlignConfig, str]
_WHOLE = ".whole"
"""Behind the name of a shard that is being thinned."""
# The one job that this process works at.
_jobs: dict[_Key, AlignJob] = {}
_grids: dict[_Key, TextGrids] = {}


def _keep(key: _Key, job: AlignJob) -> None:
    forget()
    _jobs[key] = job


def remember(job: AlignJob) -> None:
    """Have shards that are aligned in this process use a job that there is."""
    _keep((job.config, job.manifest.manifest_sha256), job)


def forget() -> None:
    """Let go of the job that this process has kept."""
    _jobs.clear()
    _grids.clear()


def align_shard(work: ShardWork) -> AlignedShard:
    """Align a shard's utterances and write those that have an alignment."""
    if work.is_apart:
        with threadpool_limits(1):
            return _align_shard(work)
    return _align_shard(work)


def _align_shard(work: ShardWork) -> AlignedShard:
    job = work.job
    manifest = job.manifest
    rows = read_rows(work.features, work.shard, inventory=manifest.labels, states=manifest.states)
    silent, silences = silent_targets(job.labels, work.states), silent_symbols(job.labels)
    packed, aligned, rejects = [], [], []
    for row, found in zip(rows, _aligner(work)(rows), strict=True):
        if isinstance(found, Unaligned):
            rejects.append(Reject(row.utterance_id, row.subset, "", found.reason, found.detail))
            continue
        packed.append(pack_row(_with_targets(row, found), _dtype(row)))
        aligned.append(
            AlignedUtterance(
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
    info, index = _written(work, packed)
    return AlignedShard(info, index, tuple(aligned), tuple(rejects), dict(job.guessed))


def _written(work: ShardWork, packed: list[PackedRow]) -> tuple[ShardInfo | None, pa.Table | None]:
    if not packed:
        return None, None
    group_size = int(str(work.job.manifest.config["row_group_size"]))
    file = f"{SHARDS_FOLDER}/{work.shard.file.rpartition('/')[2]}"
    info = write_shard(work.target, file, work.shard.subset, packed, group_size)
    return info, index_shard(work.target, info)


def thin_shard(thinning: ThinningWork) -> AlignedShard:
    """Write a shard again, less some utterances, which become rejects.

    The whole shard stays beside it (:func:`remove_whole_shards`): a worker that is lost after it
    has written is followed by another one, which begins from the same file.
    """
    work, found, left_out = thinning.work, thinning.found, thinning.left_out
    assert found.info is not None
    whole = _whole_shard(work.target, found.info)
    if not whole.exists():
        whole.write_bytes(work.target.child(*found.info.file.split("/")).read_bytes())
    kept_whole = found.info.model_copy(update={"file": found.info.file + _WHOLE})
    rows = read_rows(work.target, kept_whole, inventory=work.job.labels, states=work.states)
    packed = [pack_row(row, _dtype(row)) for row in rows if row.utterance_id not in left_out]
    if not packed:
        work.target.child(*found.info.file.split("/")).remove()
    info, index = _written(work, packed)
    rejects = tuple(
        Reject(u.utterance_id, u.subset, "", "poor_alignment", left_out[u.utterance_id])
        for u in found.aligned
        if u.utterance_id in left_out
    )
    kept = tuple(u for u in found.aligned if u.utterance_id not in left_out)
    return AlignedShard(info, index, kept, (*found.rejects, *rejects), found.guessed)


def remove_whole_shards(thinnings: Iterable[ThinningWork]) -> None:
    """Remove what :func:`thin_shard` left beside the shards that it wrote."""
    for thinning in thinnings:
        if thinning.found.info is not None:
            _whole_shard(thinning.work.target, thinning.found.info).remove()


def _whole_shard(target: Location, info: ShardInfo) -> Location:
    return target.child(*(info.file + _WHOLE).split("/"))


def _aligner(work: ShardWork) -> Aligner:
    if work.config.textgrids is not None:
        return partial(map, _textgrids(work.job, Location.of(work.config.textgrids)))
    assert work.model is not None
    return _by_scores(work.job, work.model, work.states, is_apart=work.is_apart)


def _textgrids(job: AlignJob, folder: Location) -> TextGrids:
    """What takes every utterance's phones and times from its TextGrid; listed once."""
    if job.labeller is None:
        raise PipelineError("align.textgrids is for phones from a lexicon, not TIMIT's own")
    key = (job.config, job.manifest.manifest_sha256)
    if key not in _grids:
        _grids[key] = TextGrids(folder, job.manifest, job.labels.symbols, SILENCE)
    return _grids[key]


def _by_scores(
    job: AlignJob, model: GaussianModel, states: StateInventory | None, *, is_apart: bool
) -> Aligner:
    """Finds the best path by Gaussians, and the frame targets on it."""
    stacking, normalise = Stacking.of(job.manifest), Normaliser(job.manifest.cmvn)
    targets, num_parts = (
        FrameTargets(states, len(job.labels.symbols)),
        model.sequence.states_per_phone,
    )
    min_silence_frames = job.min_silence_frames(stacking)

    def aligned(row: FeatureRow, transcript: PhoneTranscript) -> AlignedLabels | Unaligned:
        frames_tf = stacking.frames(normalise(row))
        graph = state_graph(transcript, model.sequence, min_silence_frames)
        found = best_path(model.scores(frames_tf, graph.used_U), graph)
        if found is None:
            detail = f"{len(frames_tf)} frames are too few for {row.labels.size} phones"
            return Unaligned("too_short", detail)
        targets_t = targets(found.phones_P, found.places_t, num_parts)
        return AlignedLabels(
            found.phones_P,
            targets_t[stacking.middle_frames(len(row.features))],
            found.score / len(frames_tf),
        )

    def align_rows(rows: Sequence[FeatureRow]) -> Iterator[AlignedLabels | Unaligned]:
        transcripts = [job.transcript(row) for row in rows]
        # In a process of its own, the other cores are others'.
        return (map if is_apart else in_order)(aligned, rows, transcripts)

    return align_rows


def _with_targets(row: FeatureRow, found: AlignedLabels) -> FeatureRow:
    return replace(row, labels=found.labels_P, alignment=found.alignment_T)


def _dtype(row: FeatureRow) -> FeatureDtype:
    return "float16" if row.features.dtype.itemsize == 2 else "float32"
