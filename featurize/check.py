"""What a corpus would become, without making it: every utterance is read, and nothing written."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from featurize.corpora.scan import scan_corpus
from featurize.featurize_config import FeaturizeConfig
from featurize.labels import labeller
from featurize.make_shard import extractor_of, reject_of, usable_speech
from featurize.plan_shards import ShardPlan, plan_shards
from featurize.reject_reasons import RejectedUtterance
from featurize.rejects import Reject
from featurize.stage import FanOut, Location, Progress, run_fan_out

_UTTERANCES_PER_TASK = 32


@dataclass(frozen=True)
class SubsetCheck:
    """What a subset would become."""

    name: str
    num_utterances: int  # usable ones
    num_speakers: int
    hours: float  # of usable speech
    num_resampled: int  # utterances whose sample rate would be converted
    rejects: tuple[Reject, ...]  # the others, sorted by utterance
    out_of_vocabulary: dict[str, int]  # words that the lexicon lacks, and how often they occur


@dataclass(frozen=True)
class _Piece:
    """What became of some utterances; pickles."""

    num_samples: dict[str, int]
    rejects: tuple[Reject, ...]
    num_resampled: int
    out_of_vocabulary: Counter[str]


def check_corpus(
    config: FeaturizeConfig,
    corpus: Location,
    fan_out: FanOut | None = None,
    progress: Progress | None = None,
) -> list[SubsetCheck]:
    """Read every utterance of the configured subsets as featurization would.

    Args:
        config: what features would be made; copies at other speeds are left out.
        fan_out: where it is read; all cores of this machine by default.
    """
    read = _as_recorded(config)
    labeller(read)  # a missing lexicon is told before anything is read
    listing = scan_corpus(read.corpus, corpus, read.splits.subsets, read.speaker_subsets)
    plans = plan_shards(listing.entries, read, listing.root, corpus)
    pieces = run_fan_out(_check_piece, plans, fan_out or FanOut(), progress)
    speakers = {entry.utterance_id: entry.speaker_id for entry in listing.entries}
    return [
        _joined(
            name,
            [piece for plan, piece in zip(plans, pieces, strict=True) if plan.subset == name],
            [reject for reject in listing.rejects if reject.subset == name],
            speakers,
            read.sample_rate_hz,
        )
        for name in read.splits.subsets
    ]


def _as_recorded(config: FeaturizeConfig) -> FeaturizeConfig:
    """Without copies at other speeds, in pieces that show progress."""
    changes = {"speed_factors": (), "utterances_per_shard": _UTTERANCES_PER_TASK}
    return config.model_copy(update=changes)


def _check_piece(plan: ShardPlan) -> _Piece:
    extractor, label = extractor_of(plan.config), labeller(plan.config)
    num_samples: dict[str, int] = {}
    rejects: list[Reject] = []
    missing: Counter[str] = Counter()
    num_resampled = 0
    for entry in plan.entries:
        try:
            samples, labels, was_resampled = usable_speech(plan, entry, extractor, label)
        except RejectedUtterance as refused:
            rejects.append(reject_of(entry, refused))
        else:
            num_samples[entry.utterance_id] = len(samples)
            missing.update(labels.out_of_vocabulary)
            num_resampled += was_resampled
    return _Piece(num_samples, tuple(rejects), num_resampled, missing)


def _joined(
    name: str,
    pieces: Sequence[_Piece],
    known: Sequence[Reject],
    speakers: dict[str, str],
    rate_hz: int,
) -> SubsetCheck:
    kept = {key: count for piece in pieces for key, count in piece.num_samples.items()}
    rejects = [*known, *(reject for piece in pieces for reject in piece.rejects)]
    return SubsetCheck(
        name=name,
        num_utterances=len(kept),
        num_speakers=len({speakers[key] for key in kept}),
        hours=sum(kept.values()) / rate_hz / 3600,
        num_resampled=sum(piece.num_resampled for piece in pieces),
        rejects=tuple(sorted(rejects, key=lambda reject: (reject.utterance_id, reject.path))),
        out_of_vocabulary=dict(
            sum((piece.out_of_vocabulary for piece in pieces), Counter[str]()).most_common()
        ),
    )
