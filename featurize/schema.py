"""The shard schema: one row is one utterance.

Features are little-endian bytes with their shape and dtype in columns, which reads ten times
faster than nested lists. The version changes whenever a reader of the old one would err.

Shape legend: T frames, F features per frame.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from featurize.rejects import REJECTS_NAME
from featurize.stage import FileChecksum, StageManifest, TypedConfig

SCHEMA_VERSION = 1
IMPORT_STAGE = "import"
"""Stage of feature sets whose features were made elsewhere."""
SHARDS_FOLDER = "shards"
"""Folder of the shards and of nothing else, so that any reader of Parquet takes it for a table."""
INDEX_NAME = "index.parquet"
"""What training needs to know of every utterance (``featurize.utterance_index``)."""

FeatureDtype = Literal["float16", "float32"]
STORED_DTYPES: dict[str, "np.dtype[np.floating]"] = {
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
}
THREE_STATE_SHIFT_S = 0.0125
"""Seconds between frames up to which a phone has frames enough for three states one by one."""
LabelKind = Literal["characters", "phones", "alignment"]

SHARD_SCHEMA = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("speaker_id", pa.string(), nullable=False),
        pa.field("chapter_id", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("labels", pa.list_(pa.int32()), nullable=False),
        pa.field("num_samples", pa.int64(), nullable=False),
        pa.field("num_frames", pa.int32(), nullable=False),
        pa.field("num_features", pa.int32(), nullable=False),
        pa.field("feature_dtype", pa.string(), nullable=False),
        pa.field("features", pa.binary(), nullable=False),
        pa.field("alignment", pa.list_(pa.int32()), nullable=True),
    ],
    metadata={"spikeline_schema_version": str(SCHEMA_VERSION)},
)


@dataclass(frozen=True)
class FeatureRow:
    """One utterance as it stands in a shard."""

    utterance_id: str
    speaker_id: str
    chapter_id: str
    subset: str
    text: str
    labels: NDArray[np.int32]  # target symbol ids, (num_labels,) int32
    num_samples: int  # audio samples after resampling to the configured rate
    # (T, F) in the stored precision, before mean and variance normalisation
    features: NDArray[np.floating]
    alignment: NDArray[np.int32] | None  # target id of each frame, (T,) int32, or None


class LabelInventory(TypedConfig):
    """The target symbols of a feature set, and how they are scored."""

    kind: LabelKind  # what the labels are
    symbols: tuple[str, ...]  # symbol of each id; the network has one output more than this for CTC
    # symbol each id counts as in the error rate, None where it is not scored
    scored_as: tuple[str | None, ...]
    # id of the symbol between words (the space), None where there is none
    word_boundary: int | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.scored_as) != len(self.symbols):
            raise ValueError("symbols and scored_as are of different lengths")
        if self.word_boundary is not None and not 0 <= self.word_boundary < len(self.symbols):
            raise ValueError("word_boundary is no symbol's id")
        return self


class StateInventory(TypedConfig):
    """The hidden Markov states that frames are aligned to, where they are finer than symbols.

    A state is a part of a phone, in all contexts or, as a senone, in those of a tied group. The
    senones of one phone and position share out all pairs of neighbours.
    """

    states_per_phone: int  # parts of a phone, in order
    phones: tuple[int, ...]  # symbol id of each state
    positions: tuple[int, ...]  # which part of the phone each state is, from 0
    # symbol ids before the phone that each state is for, with the number of symbols standing for
    # the utterance's start; empty where any will do
    left: tuple[tuple[int, ...], ...]
    right: tuple[tuple[int, ...], ...]  # the same after the phone

    @classmethod
    def in_any_context(
        cls, phones: tuple[int, ...], states_per_phone: int = 1, positions: tuple[int, ...] = ()
    ) -> "StateInventory":
        """States whose neighbours do not matter.

        Args:
            positions: which part of its phone each state is; the first where not given.
        """
        anyone = ((),) * len(phones)
        return cls(
            states_per_phone=states_per_phone,
            phones=phones,
            positions=positions or (0,) * len(phones),
            left=anyone,
            right=anyone,
        )


class ShardInfo(TypedConfig):
    """What the manifest says of one shard file."""

    file: str
    subset: str
    num_utterances: int
    num_frames: int
    num_bytes: int
    sha256: str


class SubsetInfo(TypedConfig):
    """Counts of one subset of the corpus."""

    num_utterances: int
    num_speakers: int
    num_frames: int
    hours: float

    @classmethod
    def of(
        cls, subset: str, shards: Iterable[ShardInfo], num_speakers: int, seconds: float
    ) -> "SubsetInfo":
        """Of those of some shards that are of the subset."""
        own = [shard for shard in shards if shard.subset == subset]
        return cls(
            num_utterances=sum(shard.num_utterances for shard in own),
            num_speakers=num_speakers,
            num_frames=sum(shard.num_frames for shard in own),
            hours=seconds / 3600,
        )


class CmvnStatistics(TypedConfig):
    """Mean and standard deviation per feature."""

    # ``global`` subtracts one mean; ``speaker`` uses each speaker's own, and the global one for a
    # speaker without an entry; ``none`` leaves the features alone
    mode: Literal["none", "global", "speaker"]
    mean: tuple[float, ...]  # (F,) over the training split
    std: tuple[float, ...]  # (F,) over the training split, floored away from zero
    # speaker id to (F,); empty unless mode is ``speaker``
    speaker_mean: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    # speaker id to (F,); empty unless mode is ``speaker``
    speaker_std: dict[str, tuple[float, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.speaker_mean.keys() != self.speaker_std.keys():
            raise ValueError("speaker_mean and speaker_std are of different speakers")
        means = (self.mean, *self.speaker_mean.values())
        stds = (self.std, *self.speaker_std.values())
        if any(len(values) != len(self.mean) for values in (*means, *stds)):
            raise ValueError("means and standard deviations are of different lengths")
        if not all(math.isfinite(value) for values in means for value in values):
            raise ValueError("a mean is not finite")
        if not all(0 < value < math.inf for values in stds for value in values):
            raise ValueError("a standard deviation is not positive and finite")
        return self

    def check_num_features(self, num_features: int) -> None:
        """Make sure that the statistics are of so many features.

        Raises:
            ValueError: when they are not.
        """
        if len(self.mean) != num_features:
            raise ValueError(f"cmvn is of {len(self.mean)} features instead of {num_features}")


class AlignmentInfo(TypedConfig):
    """Where the frame targets of an aligned feature set come from."""

    features: str  # address of the feature set that was aligned
    config: dict[str, object]  # the alignment's configuration, as JSON
    log_likelihood: float  # of the last alignment, per frame
    silence_share: float  # share of the frames aligned to silence; 0 where there is none
    mean_phone_s: float  # mean duration of a phone, silence aside, seconds
    # words that the lexicon lacks, and how they were pronounced
    guessed: dict[str, str] = Field(default_factory=dict)
    # utterances whose frames fit their words much worse than their speaker's others, and which are
    # kept all the same
    poor: tuple[str, ...] = ()


class FeaturizeManifest(StageManifest):
    """What a finished feature set says of itself."""

    config: dict[str, object]  # the featurize configuration, as JSON
    corpus_digest: str
    splits: dict[str, tuple[str, ...]]  # the corpus subsets used as ``train``, ``dev`` and ``test``
    sample_rate_hz: int
    frame_shift_s: float  # seconds between rows of ``features``, after frame stacking
    num_features: int
    labels: LabelInventory
    cmvn: CmvnStatistics
    subsets: dict[str, SubsetInfo]
    shards: tuple[ShardInfo, ...]
    reject_counts: dict[str, int]  # number of rejected utterances by reason
    num_resampled: int  # utterances whose sample rate was not the configured one
    # word to number of occurrences, for lexicon labels
    out_of_vocabulary: dict[str, int] = Field(default_factory=dict)
    corpus: str = ""  # where the corpus stood, for whoever repairs; empty in earlier versions
    # how the frame targets were found, where the align stage found them
    aligned: AlignmentInfo | None = None
    # what the frame targets are, where they are not the symbols themselves
    states: StateInventory | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.cmvn.check_num_features(self.num_features)
        return self

    def known_checksums(self) -> dict[str, FileChecksum]:
        """Those of the shards."""
        return {
            shard.file: FileChecksum(num_bytes=shard.num_bytes, sha256=shard.sha256)
            for shard in self.shards
        }

    def own_names(self) -> frozenset[str]:
        """The shards, their index and the rejects."""
        return frozenset({REJECTS_NAME, INDEX_NAME, *(shard.file for shard in self.shards)})

    @property
    def num_frame_targets(self) -> int:
        """Different targets that the alignment column may hold."""
        return len(self.labels.symbols if self.states is None else self.states.phones)
