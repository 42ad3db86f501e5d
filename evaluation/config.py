"""Configuration of an evaluation."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from featurize.stage import InFingerprint, TypedConfig, VerifyMode

DecoderName = Literal["auto", "greedy", "viterbi", "prefix"]
MAX_PREFIXES = 32


class ViterbiConfig(TypedConfig):
    """Search for the best symbol sequence over a bigram of the training labels.

    A path's score is the sum over frames of ``log p(s | x) - prior_scale log p(s)`` and, at
    every new symbol, ``bigram_weight log p(s' | s) - insertion_penalty``; see
    ``evaluation.graph.search``. Weight, penalty and beam are stated for frames of 30 ms; those of
    10 ms score three times as often, and get three times as much (``evaluation.decoding``).
    """

    bigram_weight: float = Field(
        1.0,
        ge=0,
        le=100,
        description="Weight of the phone bigram of the training labels beside the network's "
        "scores.",
    )
    insertion_penalty: float = Field(
        0.0,
        ge=-100,
        le=100,
        description="Subtracted at every change of phone; larger gives fewer phones.",
    )
    prior_scale: float = Field(
        0.5,
        ge=0,
        le=10,
        description="Share of the log prior taken off the log posterior; 1 is Bayes' rule, "
        "0 scores posteriors as they are.",
    )
    smoothing: float = Field(
        0.5, gt=0, description="Added to every bigram count before normalising."
    )
    beam: float = Field(
        12.0,
        gt=0,
        le=1e4,
        description="Paths this far (natural log) behind the best one are given up; a wider beam "
        "is slower and errs less.",
    )
    max_active: int = Field(
        7000, ge=10, le=1_000_000, description="Paths kept after a frame at most."
    )
    max_prefixes: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Symbol sequences that decoder=prefix keeps after a frame at most; empty for "
        f"{MAX_PREFIXES}.",
    )
    tune_on_dev: bool = Field(
        True,
        description="Choose weight, penalty and prior scale per model on dev, one after the other; "
        "without a dev split they stay as they are.",
    )
    tune_max_utterances: int = Field(
        200, ge=1, le=10_000, description="Dev utterances used for tuning, spread evenly."
    )


class WordSearchConfig(TypedConfig):
    """Search for words over a lexicon and an n-gram language model; see ``evaluation.graph``.

    Words are scored beside the symbols: the phone error rate stays that of the symbol decoder.
    Weights and beam are stated for frames of 30 ms, as those of the search for symbols.
    """

    language_model: Annotated[str | None, InFingerprint.EVEN_WHEN_OFF] = Field(
        None,
        description="ARPA file, plain or gzip, a path or s3:// address; empty to estimate one "
        "from the text, or from the training transcripts.",
    )
    text: str | None = Field(
        None,
        description="Text to estimate a language model from, plain or gzip, one sentence a line, a "
        "path or s3:// address; empty for the training transcripts.",
    )
    ngram_order: int = Field(
        3, ge=1, le=5, description="Words of the longest n-gram of an estimated model."
    )
    ngram_min_count: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="N-grams of two words and more that a text has less often are left out of an "
        "estimated model; empty for 2 with a text and 1 with the training transcripts.",
    )
    vocabulary: Literal["lexicon", "transcripts"] = Field(
        "lexicon",
        description="Words of an estimated model: the lexicon's and the training transcripts', or "
        "the transcripts' alone, which is faster and, for a weak recogniser, surer.",
    )
    max_words: int | None = Field(
        None,
        ge=100,
        description="Most frequent words that an estimated model keeps, for a small graph; the "
        "others cannot be found. Goes with vocabulary=transcripts; empty for all words.",
    )
    lexicon: Annotated[str | None, InFingerprint.EVEN_WHEN_OFF] = Field(
        None,
        description="Pronunciation file, one 'WORD PH PH ...' a line; empty for the one that the "
        "labels were made with.",
    )
    lm_weight: float = Field(
        2.0,
        ge=0,
        le=100,
        description="Weight of the language model's log-probability beside the network's scores.",
    )
    word_score: float = Field(
        0.0, ge=-100, le=100, description="Added for every word; larger gives more words."
    )
    prior_scale: float = Field(
        0.5,
        ge=0,
        le=10,
        description="Share of the log prior taken off the log posterior; frame models only.",
    )
    beam: float = Field(
        26.0,
        gt=0,
        le=1e4,
        description="Paths this far (natural log) behind the best one are given up; a wider beam "
        "is slower and errs less. A larger lm_weight needs a wider one.",
    )
    max_active: int = Field(
        2000, ge=10, le=1_000_000, description="Paths kept after a frame at most."
    )
    tune_on_dev: bool = Field(
        True,
        description="Choose the weights per model by a small grid on dev; without a dev split they "
        "stay as they are.",
    )
    tune_max_utterances: int = Field(
        50, ge=1, le=10_000, description="Dev utterances used for tuning, spread evenly."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.language_model is not None and self.text is not None:
            raise ValueError("words.language_model and words.text are both given; give one of them")
        if self.max_words is not None and self.vocabulary != "transcripts":
            raise ValueError("words.max_words goes with words.vocabulary=transcripts")
        return self


class EvaluateConfig(TypedConfig):
    """Everything that determines an evaluation, besides its models and features."""

    split: str = Field(
        "test", min_length=1, description="Split of the feature set to score: train, dev or test."
    )
    subsets: Annotated[tuple[str, ...], InFingerprint.EVEN_WHEN_OFF] = Field(
        (), description="Corpus subsets to score instead of a split, by name; empty for the split."
    )
    decoder: DecoderName = Field(
        "auto",
        description="How scores become symbols: the best output of each frame (greedy, CTC only), "
        "a search over a bigram of the training labels for the best path (viterbi) or, of CTC, for "
        "the symbols whose paths are the most probable together (prefix); auto takes greedy for "
        "CTC and viterbi for frame models.",
    )
    viterbi: ViterbiConfig = Field(
        default_factory=ViterbiConfig, description="Settings of the search for symbols."
    )
    search_of: Annotated[str | None, InFingerprint.NEVER] = Field(
        None,
        description="Finished evaluation whose choices are used, its weights, lexicon and language "
        "model; empty to choose here.",
    )
    words: Annotated[WordSearchConfig | None, InFingerprint.EVEN_WHEN_OFF] = Field(
        None, description="Search for words too, for a word error rate; empty for symbols alone."
    )
    weight_bits: int | None = Field(
        None,
        ge=2,
        le=8,
        description="Bits to which the weights of a trained network are rounded, row by row, "
        "before it recognises; empty for weights as they were trained.",
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
