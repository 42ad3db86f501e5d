"""Configuration of an evaluation."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from featurize.stage import InFingerprint, TypedConfig, VerifyMode

DecoderName = Literal["auto", "greedy", "beam", "viterbi"]


class BeamConfig(TypedConfig):
    """Lexicon-free beam search over CTC scores."""

    beam_size: int = Field(
        32,
        ge=1,
        le=4096,
        description="Hypotheses kept after each frame; more are slower and err less.",
    )
    beam_threshold: float = Field(
        50.0, gt=0, description="Drop a hypothesis this far (natural log) below the best one."
    )


class ViterbiConfig(TypedConfig):
    """Search for the best phone sequence of a frame model, over a bigram of the training labels.

    A path's score is the sum over frames of ``log p(s | x) - prior_scale log p(s)`` and, at
    every change of phone, ``bigram_weight log p(s' | s) - insertion_penalty``.
    """

    bigram_weight: float = Field(
        1.0,
        ge=0,
        description="Weight of the phone bigram of the training labels beside the network's "
        "scores.",
    )
    insertion_penalty: float = Field(
        0.0, description="Subtracted at every change of phone; larger gives fewer phones."
    )
    prior_scale: float = Field(
        0.5,
        ge=0,
        description="Share of the log prior taken off the log posterior; 1 is Bayes' rule, "
        "0 scores posteriors as they are.",
    )
    smoothing: float = Field(
        0.5, gt=0, description="Added to every bigram and prior count before normalising."
    )
    tune_on_dev: bool = Field(
        False,
        description="Choose weight, penalty and prior scale per model on dev, one after the other.",
    )
    tune_max_utterances: int = Field(
        200, ge=1, le=10_000, description="Dev utterances used for tuning, spread evenly."
    )


class WordSearchConfig(TypedConfig):
    """Search for words over a lexicon and an n-gram language model; see ``evaluation.word_search``.

    Words are scored beside the symbols: the phone error rate stays that of the symbol decoder.
    """

    language_model: Annotated[str | None, InFingerprint.EVEN_WHEN_OFF] = Field(
        None,
        description="ARPA file, plain or gzip, a path or s3:// address; empty to estimate one "
        "from the training transcripts.",
    )
    ngram_order: int = Field(
        3, ge=1, le=5, description="Words of the longest n-gram of an estimated model."
    )
    vocabulary: Literal["lexicon", "transcripts"] = Field(
        "lexicon",
        description="Words of an estimated model: the lexicon's and the training transcripts', or "
        "the transcripts' alone, which is faster and, for a weak recogniser, surer.",
    )
    lexicon: Annotated[str | None, InFingerprint.EVEN_WHEN_OFF] = Field(
        None,
        description="Pronunciation file, one 'WORD PH PH ...' a line; empty for the one that the "
        "labels were made with.",
    )
    lm_weight: float = Field(
        0.75,
        ge=0,
        le=100,
        description="Weight of the language model's log-probability beside the network's scores.",
    )
    word_score: float = Field(
        1.0, ge=-100, le=100, description="Added for every word; larger gives more words."
    )
    prior_scale: float = Field(
        0.5,
        ge=0,
        le=10,
        description="Share of the log prior taken off the log posterior; frame models only.",
    )
    beam_size: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Hypotheses kept after each frame; more are slower and err less.",
    )
    beam_threshold: float = Field(
        25.0,
        gt=0,
        le=1e4,
        description="Drop a hypothesis this far (natural log) below the best one.",
    )
    log_add: bool = Field(
        False,
        description="Add the probabilities of a hypothesis' paths; else its best path counts.",
    )
    tune_on_dev: bool = Field(
        True, description="Choose the weights per model by a small grid on dev."
    )
    tune_max_utterances: int = Field(
        50, ge=1, le=10_000, description="Dev utterances used for tuning, spread evenly."
    )


class EvaluateConfig(TypedConfig):
    """Everything that determines an evaluation, besides its models and features."""

    split: str = Field(
        "test",
        min_length=1,
        description="Split of the feature set to score: train, dev or test.",
    )
    subsets: Annotated[tuple[str, ...], InFingerprint.EVEN_WHEN_OFF] = Field(
        (), description="Corpus subsets to score instead of a split, by name; empty for the split."
    )
    decoder: DecoderName = Field(
        "auto",
        description="How scores become symbols: greedy or beam for CTC, viterbi for frame models; "
        "auto takes greedy for CTC and viterbi for frame models.",
    )
    beam: BeamConfig = Field(
        default_factory=BeamConfig,
        description="Settings of the CTC beam search; used with decoder=beam.",
    )
    viterbi: ViterbiConfig = Field(
        default_factory=ViterbiConfig,
        description="Settings of the phone search of models with frame targets.",
    )
    words: Annotated[WordSearchConfig | None, InFingerprint.EVEN_WHEN_OFF] = Field(
        None, description="Search for words too, for a word error rate; empty for symbols alone."
    )
    num_bootstrap: int = Field(
        1000,
        ge=100,
        le=1_000_000,
        description="How often the scored utterances are drawn anew for each 95% interval.",
    )
    seed: int = Field(0, ge=0, description="Seed of the drawing behind the intervals.")
    batch_size: int = Field(
        32,
        ge=1,
        le=4096,
        description="Utterances that the network hears at once; never changes the result.",
    )
    verify_features: Annotated[VerifyMode, InFingerprint.NEVER] = Field(
        "sampled",
        description="Check the feature shards against their manifest before scoring: off, "
        "sampled (all sizes, one file in eight whole) or full; never changes the result.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.subsets)) != len(self.subsets):
            raise ValueError("subsets: a name is given twice; name each subset once")
        return self
