"""Configuration of a feature set, validated where it is defined."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from featurize.corpora.registry import CorpusName
from featurize.corpora.speaker_subsets import SpeakerSubset, owners
from featurize.mel import fft_size, mel_slopes
from featurize.schema import FeatureDtype, LabelKind
from featurize.stage import InFingerprint, TypedConfig

OutOfVocabularyRule = Literal["unknown", "spell", "reject"]


class SplitsConfig(TypedConfig):
    """Which subsets of the corpus are trained on, chosen by and scored on."""

    train: tuple[str, ...] = Field(
        (), description="Subsets to train on; empty for features that are only scored."
    )
    dev: tuple[str, ...] = Field(
        (), description="Subsets that steer the learning rate and pick the checkpoint."
    )
    test: Annotated[tuple[str, ...], InFingerprint.EVEN_WHEN_OFF] = Field(
        (), description="Subsets that are scored and never trained or chosen on."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = self.subsets
        if not names:
            raise ValueError("splits name no subset; name at least one of the corpus")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(
                f"subset {repeated[0]!r} is named twice; a subset belongs to one split, else "
                "the scores are of sentences trained on"
            )
        return self

    @property
    def subsets(self) -> tuple[str, ...]:
        """Every subset, train first."""
        return (*self.train, *self.dev, *self.test)

    def as_dict(self) -> dict[str, tuple[str, ...]]:
        """Split name to subsets, as the manifest keeps it."""
        return {"train": self.train, "dev": self.dev, "test": self.test}


class FeaturizeConfig(TypedConfig):
    """Everything that determines a feature set, besides the corpus."""

    corpus: CorpusName = Field(
        "librispeech",
        description="How the corpus's folders are laid out, which is also how its transcripts "
        "and speakers are found.",
    )
    splits: SplitsConfig = Field(description="Subsets used to train, to choose and to score.")
    speaker_subsets: tuple[SpeakerSubset, ...] = Field(
        (),
        description="Subsets of your own, by speaker, for a corpus without the standard ones: a "
        "name that the splits use, and its speakers. Other subsets lose these speakers.",
    )
    sample_rate_hz: int = Field(
        16000, ge=8000, le=48000, description="Audio at another rate is resampled, and counted."
    )
    min_duration_s: float = Field(
        0.1, ge=0, description="Shorter utterances are rejected (too_short)."
    )
    max_duration_s: float = Field(
        40.0, gt=0, le=600, description="Longer utterances are rejected (too_long)."
    )
    features: Literal["fbank", "mfcc"] = Field(
        "fbank", description="Log mel filterbank energies, or cepstra of them, as Kaldi's."
    )
    num_bins: int = Field(
        40,
        ge=4,
        le=128,
        description="Mel filters per frame, which is the number of values per frame with fbank "
        "(40 in the paper).",
    )
    num_ceps: int = Field(13, ge=1, le=128, description="Cepstra per frame; used with mfcc alone.")
    frame_length_s: float = Field(
        0.025,
        ge=0.001,
        le=0.2,
        description="Length of the window that a frame is computed from, in seconds.",
    )
    frame_shift_s: float = Field(
        0.010,
        ge=0.001,
        le=0.2,
        description="Time from one window to the next, in seconds: 0.01 gives 100 frames a second.",
    )
    dither: float = Field(
        0.0, ge=0, description="Noise on 16-bit samples, seeded by the utterance id; 0 for none."
    )
    speed_factors: tuple[float, ...] = Field(
        (),
        description="Copies of the training utterances played at these speeds beside the "
        "originals, for example 0.9 and 1.1 (Ko et al. 2015); their ids begin with the factor.",
    )
    deltas: Literal[0, 1, 2] = Field(
        0, description="Append first, or first and second, time differences."
    )
    stack: int = Field(
        1, ge=1, le=16, description="Consecutive frames joined into one; only full stacks are kept."
    )
    stride: int = Field(
        1,
        ge=1,
        le=16,
        description="Frames from the start of one stack to that of the next; equal to stack for "
        "no overlap.",
    )
    cmvn: Literal["none", "global", "speaker"] = Field(
        "global",
        description="Mean and variance normalisation on reading: over the train split, or over "
        "each speaker's own utterances.",
    )
    labels: LabelKind = Field(
        "characters",
        description="What the recogniser puts out: characters or phones of the transcript, or "
        "one phone per frame of a time alignment that the corpus brings.",
    )
    lexicon: Annotated[str | None, InFingerprint.EVEN_WHEN_OFF] = Field(
        None,
        description="Pronunciation file, one 'WORD PH PH ...' a line, for phone labels; "
        "empty for CMUdict.",
    )
    out_of_vocabulary: OutOfVocabularyRule = Field(
        "unknown",
        description="A word the lexicon lacks: one 'spn' symbol (unknown), phones guessed from "
        "its letters (spell), or the utterance is rejected (reject). Always counted.",
    )
    feature_dtype: FeatureDtype = Field(
        "float16",
        description="Precision in which features are stored: float16 halves their size on disk.",
    )
    utterances_per_shard: int = Field(
        256,
        ge=1,
        le=65536,
        description="Most utterances in one shard file; a shard is one task, and is made again "
        "whole.",
    )
    row_group_size: int = Field(
        8,
        ge=1,
        le=4096,
        description="Utterances of similar length that are stored, and later read, together.",
    )
    max_reject_share: Annotated[float, InFingerprint.NEVER] = Field(
        0.01, ge=0, le=1, description="The run fails past this share of unusable utterances."
    )
    seed: int = Field(0, ge=0, description="Seed of the assignment of utterances to shards.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        unused = sorted(set(owners(self.speaker_subsets).values()) - set(self.splits.subsets))
        if unused:
            raise ValueError(
                f"speaker_subsets: no split uses {unused[0]!r}; name it in splits.train, "
                "splits.dev or splits.test"
            )
        if self.frame_shift_s > self.frame_length_s:
            raise ValueError(
                f"frame_shift_s={self.frame_shift_s} exceeds frame_length_s="
                f"{self.frame_length_s} and would skip audio; use a smaller shift"
            )
        if self.max_duration_s < max(self.min_duration_s, self.frame_length_s):
            raise ValueError(
                f"max_duration_s={self.max_duration_s} is below min_duration_s or one window; "
                "raise it"
            )
        if self.features == "mfcc" and self.num_ceps > self.num_bins:
            raise ValueError(
                f"num_ceps={self.num_ceps} exceeds num_bins={self.num_bins}; lower num_ceps"
            )
        for factor in self.speed_factors:
            if not 0.5 <= factor <= 2 or factor == 1 or self.speed_factors.count(factor) > 1:
                raise ValueError(
                    f"speed_factors={self.speed_factors}: use different factors from 0.5 to 2; the "
                    "originals, at 1, are always there"
                )
            if round(factor, 2) != factor:
                raise ValueError(f"speed_factors={self.speed_factors}: use at most two decimals")
        mel_slopes(
            self.num_bins,
            fft_size(round(self.sample_rate_hz * self.frame_length_s)),
            self.sample_rate_hz,
        )
        if self.stride > self.stack and self.stack > 1:
            raise ValueError(
                f"stride={self.stride} exceeds stack={self.stack} and would drop frames between "
                "stacks; use stride <= stack, or stack=1 to keep every stride-th frame alone"
            )
        if self.lexicon is not None and self.labels != "phones":
            raise ValueError(f"lexicon is used by labels=phones only, not {self.labels}; remove it")
        return self

    @property
    def num_features(self) -> int:
        """F, values in one row of the stored features."""
        static = self.num_bins if self.features == "fbank" else self.num_ceps
        return static * (1 + self.deltas) * self.stack

    @property
    def stored_frame_shift_s(self) -> float:
        """Seconds between two rows of the stored features."""
        return self.frame_shift_s * self.stride
