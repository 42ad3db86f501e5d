"""Making one shard: the unit of work that is fanned out, retried and resumed.

A shard is finished when its sidecar stands beside it under ``unfinished/``; an interrupted run
finds the sidecar, checks the file against it, and does not make the shard again.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from featurize.audio import read_audio
from featurize.corpora.entry import CorpusEntry, file_of
from featurize.features import FeatureExtractor
from featurize.featurize_config import FeaturizeConfig
from featurize.labels import Labeller, Labels, frames_needed, labeller
from featurize.moments import MomentSums, add_moments
from featurize.plan_shards import ShardPlan
from featurize.reject_reasons import RejectedUtterance
from featurize.rejects import Reject
from featurize.schema import FeatureRow, ShardInfo
from featurize.shard_writer import PackedRow, pack_row, unpacked_features, write_shard
from featurize.shards import verify_shard
from featurize.speed import play, recorded_samples
from featurize.stage import PipelineError, TypedConfig
from featurize.utterance_index import index_shard

ALIGNMENT_TOLERANCE_S = 0.25
"""A ``.PHN`` may end this far from the end of its audio, as some of TIMIT's own do."""
_MAX_SIDECAR_BYTES = 256 * 2**20

logger = logging.getLogger(__name__)


class ShardResult(TypedConfig):
    """What came of one shard."""

    subset: str
    shard: ShardInfo | None  # None where every utterance was rejected, and no file written
    rejects: tuple[Reject, ...]
    num_samples: int  # of all accepted utterances together
    num_resampled: int  # accepted utterances whose sample rate was not the configured one
    out_of_vocabulary: dict[str, int]  # word to occurrences among the accepted utterances


class ShardSidecar(TypedConfig):
    """What is kept of a shard until the feature set is finished."""

    result: ShardResult  # what came of it
    moments: dict[str, MomentSums]  # speaker id to that speaker's moments within the shard
    # columns of its part of the index; empty where no file was written
    index: dict[str, tuple[bool | int, ...]]


def make_shard(plan: ShardPlan) -> ShardResult:
    """Featurize a shard's utterances and write its file, unless that was done already.

    One utterance's audio is in memory at a time, and the packed features of one shard.
    """
    kept = _kept_sidecar(plan)
    if kept is not None:
        logger.info("%s is already made", plan.file)
        return kept.result
    rows: list[PackedRow] = []
    rejects: list[Reject] = []
    moments: dict[str, MomentSums] = {}
    missing: Counter[str] = Counter()
    num_samples = num_resampled = 0
    for found in _featurized(plan, plan.entries):
        if isinstance(found, Reject):
            rejects.append(found)
            continue
        row, words, was_resampled = found
        packed = pack_row(row, plan.config.feature_dtype)
        own = MomentSums.of(unpacked_features(packed))
        so_far = moments.get(row.speaker_id)
        moments[row.speaker_id] = own if so_far is None else add_moments([so_far, own])
        rows.append(packed)
        missing.update(words)
        num_samples += row.num_samples
        num_resampled += was_resampled
    shard, index = None, {}
    if rows:
        group_size = plan.config.row_group_size
        shard = write_shard(plan.location, plan.file, plan.subset, rows, group_size)
        index = index_shard(plan.location, shard).to_pydict()
    result = ShardResult(
        subset=plan.subset,
        shard=shard,
        rejects=tuple(rejects),
        num_samples=num_samples,
        num_resampled=num_resampled,
        out_of_vocabulary=dict(sorted(missing.items())),
    )
    sidecar = ShardSidecar(result=result, moments=moments, index=index)
    plan.sidecar.write_bytes(sidecar.model_dump_json().encode())
    return result


def read_sidecar(plan: ShardPlan) -> ShardSidecar:
    """What is kept of a shard that was made."""
    try:
        return ShardSidecar.model_validate_json(plan.sidecar.read_bytes())
    except (FileNotFoundError, ValidationError) as error:
        raise PipelineError(
            f"{plan.sidecar} is missing or damaged: something else writes there; run the stage "
            "again"
        ) from error


def rejects_of(plan: ShardPlan, entries: Iterable[CorpusEntry]) -> tuple[Reject, ...]:
    """Why some of a shard's utterances are rejected; writes nothing."""
    return tuple(found for found in _featurized(plan, entries) if isinstance(found, Reject))


def reject_of(entry: CorpusEntry, refused: RejectedUtterance) -> Reject:
    """The row of an utterance that cannot be used."""
    return Reject(entry.utterance_id, entry.subset, entry.audio, refused.reason, refused.detail)


def _featurized(
    plan: ShardPlan, entries: Iterable[CorpusEntry]
) -> Iterator[tuple[FeatureRow, Counter[str], bool] | Reject]:
    """Rows, each with the words that the lexicon lacks and whether it was resampled."""
    extractor, label = extractor_of(plan.config), labeller(plan.config)
    for entry in entries:
        try:
            yield _featurize_utterance(plan, entry, extractor, label)
        except RejectedUtterance as refused:
            yield reject_of(entry, refused)


def _featurize_utterance(
    plan: ShardPlan, entry: CorpusEntry, extractor: FeatureExtractor, label: Labeller
) -> tuple[FeatureRow, Counter[str], bool]:
    samples, labels, was_resampled = usable_speech(plan, entry, extractor, label)
    features = extractor(samples, entry.utterance_id)
    if not np.isfinite(features).all():
        raise RejectedUtterance("non_finite_audio", "samples so large that features overflow")
    row = FeatureRow(
        utterance_id=entry.utterance_id,
        speaker_id=entry.speaker_id,
        chapter_id=entry.chapter_id,
        subset=entry.subset,
        text=entry.text,
        labels=labels.ids,
        num_samples=len(samples),
        features=features,
        alignment=labels.alignment,
    )
    return row, labels.out_of_vocabulary, was_resampled


def usable_speech(
    plan: ShardPlan, entry: CorpusEntry, extractor: FeatureExtractor, label: Labeller
) -> tuple[NDArray[np.float32], Labels, bool]:
    """One utterance's samples and labels, and whether the rate was converted.

    Raises:
        RejectedUtterance: when it cannot be used; only features too large for their type are
            found later.
    """
    config = plan.config
    audio = read_audio(
        file_of(plan.corpus, entry.audio),
        config.sample_rate_hz,
        config.max_duration_s,
        entry.segment,
    )
    samples = play(audio.samples, entry.speed)
    num_samples = len(samples)
    num_frames = extractor.num_frames(num_samples)
    if num_samples < config.min_duration_s * config.sample_rate_hz or num_frames < 1:
        raise RejectedUtterance("too_short", f"{num_samples} samples at {config.sample_rate_hz} Hz")
    centres = recorded_samples(extractor.centre_samples(num_frames), entry.speed)
    labels = label(entry, plan.corpus, centres, audio.native_rate_hz)
    _check_end(labels, len(audio.samples), config.sample_rate_hz)
    if frames_needed(labels.ids) > num_frames:
        raise RejectedUtterance(
            "too_short", f"{num_frames} frames cannot spell {len(labels.ids)} labels"
        )
    return samples, labels, audio.was_resampled


def _check_end(labels: Labels, num_samples: int, rate_hz: int) -> None:
    """Refuse an alignment of other audio, or by another clock."""
    if labels.end_sample is None:
        return
    if abs(labels.end_sample - num_samples) > ALIGNMENT_TOLERANCE_S * rate_hz:
        raise RejectedUtterance(
            "bad_alignment",
            f"the .PHN ends at {labels.end_sample / rate_hz:.2f} s, the audio at "
            f"{num_samples / rate_hz:.2f} s",
        )


@lru_cache(maxsize=4)
def extractor_of(config: FeaturizeConfig) -> FeatureExtractor:
    """The extractor of a configuration, built once per process."""
    return FeatureExtractor(config)


def _kept_sidecar(plan: ShardPlan) -> ShardSidecar | None:
    """What an interrupted run kept, where it and the shard's file are whole."""
    try:
        if not plan.sidecar.exists():
            return None
        if plan.sidecar.filesystem.size(plan.sidecar.path) > _MAX_SIDECAR_BYTES:
            return None
        kept = read_sidecar(plan)
        if kept.result.shard is not None:
            verify_shard(plan.location, kept.result.shard)
    except PipelineError as error:
        logger.warning("%s is made again: %s", plan.file, error)
        return None
    return kept
