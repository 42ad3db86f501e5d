"""Configuration of the align stage."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from featurize.stage import InFingerprint, TypedConfig


class TargetsConfig(TypedConfig):
    """What the frames are aligned to."""

    kind: Literal["phones", "states", "senones"] = Field(
        "phones",
        description="Phones; parts of phones in any context (context-independent states); or parts "
        "of phones whose contexts a decision tree ties (context-dependent states).",
    )
    states_per_phone: int = Field(
        3, ge=1, le=3, description="Parts of a phone; for states and senones. 1 or 3."
    )
    num_senones: int = Field(
        1000, ge=1, le=20_000, description="Tied states to grow the decision trees to."
    )
    min_frames: int = Field(
        100,
        ge=1,
        description="Fewest training frames of a tied state; states with fewer are tied together.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.states_per_phone == 2:
            raise ValueError("states_per_phone=2: frames are aligned in 3 parts; use 1 or 3")
        return self


class AlignConfig(TypedConfig):
    """Everything that determines an alignment, besides the features it is of."""

    targets: TargetsConfig = Field(
        default_factory=TargetsConfig,
        description="What the frames are named by: phones, states, or tied states of phones in "
        "context.",
    )
    textgrids: Annotated[str | None, InFingerprint.NEVER] = Field(
        None,
        description="Take phones and times from this folder of Praat TextGrids (Montreal Forced "
        "Aligner), path or s3://, in place of finding them; empty to find them.",
    )
    num_gaussian_rounds: int = Field(
        15,
        ge=1,
        le=100,
        description="Rounds of aligning with Gaussian mixtures and estimating them anew, from "
        "a flat start.",
    )
    num_mixtures: int = Field(
        8,
        ge=1,
        le=64,
        description="Gaussians per state in the last rounds at most; they double, once a round.",
    )
    num_context_rounds: int = Field(
        0, ge=0, le=100, description="Further rounds, over tied states of phones in context."
    )
    num_context_states: int = Field(
        1000, ge=1, le=20_000, description="Tied states of phones in context in these rounds."
    )
    num_estimation_utterances: int = Field(
        2000,
        ge=1,
        le=100_000,
        description="Training utterances the Gaussians are estimated on, spread evenly; held in "
        "memory.",
    )
    context_frames: int = Field(
        1,
        ge=0,
        le=15,
        description="Frames on either side that a Gaussian also sees; more of them blur the "
        "boundaries.",
    )
    num_dimensions: int = Field(
        40,
        ge=2,
        le=256,
        description="Dimensions of a frame after the discriminant projection that the Gaussians "
        "see.",
    )
    min_silence_s: float = Field(
        0.03, ge=0, le=1, description="Shortest silence between words, seconds."
    )
    poor_deviations: float = Field(
        3.0,
        gt=0,
        description="An utterance whose score per frame lies so many standard deviations below "
        "its speaker's median is named as poorly aligned.",
    )
    max_deviations: float = Field(
        5.0,
        gt=0,
        description="Past so many deviations it is left out (poor_alignment), and counts among "
        "the rejects.",
    )
    max_reject_share: Annotated[float, InFingerprint.NEVER] = Field(
        0.01,
        ge=0,
        le=1,
        description="The run fails past this share of a split's utterances that cannot be aligned.",
    )
    seed: int = Field(0, ge=0, description="Seed of everything that the alignment draws at random.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.textgrids is not None and self.targets.kind != "phones":
            raise ValueError("textgrids give phones as they are: use targets.kind=phones with them")
        return self
