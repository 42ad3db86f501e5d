"""``metrics.json``: the contract between an evaluation and whoever reads its result."""

from typing import Literal

from pydantic import Field

from evaluation.config import DecoderName, ViterbiConfig, WordSearchConfig
from evaluation.paper_corpus import PaperCorpus
from evaluation.scoring import RATE_UNITS, RateName
from featurize.schema import LabelKind
from featurize.stage import TypedConfig

METRICS_SCHEMA_VERSION: Literal[1] = 1


class ErrorRate(TypedConfig):
    """An error rate as a fraction, with its bootstrap 95% interval over utterances."""

    value: float = Field(description="Errors over reference symbols; may exceed 1.")
    low: float = Field(description="Lower end of the 95% interval.")
    high: float = Field(description="Upper end of the 95% interval.")


class ErrorRates(TypedConfig):
    """Phone, word and character error rate; empty where the labels do not give one."""

    per: ErrorRate | None = Field(
        None, description="Phone error rate, where the labels are phones."
    )
    wer: ErrorRate | None = Field(
        None, description="Word error rate, where words were searched or spelled."
    )
    cer: ErrorRate | None = Field(
        None, description="Character error rate, spaces included, where the labels are characters."
    )

    def known(self) -> dict[RateName, ErrorRate]:
        """Those that there are, in the order of tables."""
        return {name: rate for name in RATE_UNITS if (rate := getattr(self, name)) is not None}


class ParameterCounts(TypedConfig):
    """How many values were learned."""

    total: int = Field(description="Learned values of the whole network.")
    recurrent_layers: int = Field(
        description="Learned values of the recurrent layers, without encoder and output."
    )


class MultiplicationCounts(TypedConfig):
    """Multiplications per frame, padding excluded; see ``evaluation.multiplications``."""

    audited: float = Field(
        description="Matrix terms, exact: the sum over utterances of non-zero inputs times "
        "fan-out, over the frames."
    )
    as_published: float = Field(description="As the authors' script counts, for comparison.")
    terms: dict[str, float] = Field(
        description="By term: feed_forward_l, recurrent_l, output (they add up to audited) and "
        "elementwise (not part of it)."
    )
    audited_closed_form: float = Field(
        description="Matrix terms from mean non-zeros; above audited by what v2's last frames "
        "would have fed back."
    )


class Saving(TypedConfig):
    """How many times fewer multiplications than a dense model of the same size.

    Empty where the model needs no matrix multiplications at all (single-bit spikes).
    """

    gru: float | None = Field(
        description="Multiplications of a GRU of this size over this model's."
    )
    lstm: float | None = Field(
        description="Multiplications of an LSTM of this size over this model's."
    )


class WorkloadMetrics(TypedConfig):
    """What speech costs in the field's measures; ``evaluation.workload`` defines each."""

    multiplications_per_s: float = Field(
        description="Multiplications per second of speech, matrix terms, exact."
    )
    additions_per_s: float = Field(
        description="Additions per second of speech, matrix and elementwise."
    )
    weight_bytes_per_s: float = Field(
        description="Bytes of weights fetched per second of speech, in float32, where nothing is "
        "kept between frames."
    )
    footprint_bytes: int = Field(description="Bytes of all parameters and buffers (NeuroBench).")
    connection_sparsity: float = Field(
        description="Share of the weights that are zero (NeuroBench)."
    )
    activation_sparsity: float = Field(
        description="Share of outputs not sent, over the sites that send events (NeuroBench)."
    )
    effective_macs: float = Field(
        description="Products per frame with an output that is not zero (NeuroBench)."
    )
    effective_acs: float = Field(
        description="Additions per frame of weights that a binary spike reaches (NeuroBench)."
    )
    dense_operations: float = Field(
        description="Operations per frame if every output counted (NeuroBench)."
    )
    execution_rate_hz: float = Field(description="Frames per second (NeuroBench).")
    look_ahead_ms: float = Field(
        description="Speech heard after the frame that is named, in milliseconds."
    )


class ModelMetrics(TypedConfig):
    """One recogniser on the evaluated utterances."""

    model: str = Field(description="Which kind of recogniser it is, by its short name.")
    title: str = Field("", description="The kind of recogniser in a sentence.")
    label: str = Field(description="Its name in this evaluation, unique.")
    setting: str | None = Field(
        None,
        description="Name shared with the runs that differ in the seed alone; empty: the label.",
    )
    seed: int = Field(0, description="Seed that it was trained with.")
    run: str = Field(description="Address of the training run.")
    training_fingerprint: str = Field(description="Fingerprint of the training run.")
    decoder: DecoderName = Field(description="How its scores became symbols.")
    viterbi: ViterbiConfig | None = Field(None, description="Weights of the phone search, if any.")
    words: WordSearchConfig | None = Field(
        None, description="Weights of the word search, if any, as tuned for this model."
    )
    symbol_graph: str | None = Field(
        None, description="Fingerprint of the graph that symbols were searched in, if any."
    )
    word_graph: str | None = Field(
        None, description="Fingerprint of the graph that words were searched in, if any."
    )
    has_heard: int | None = Field(
        0,
        description="Scored utterances that the model was trained on; 0 where none was, empty "
        "where the features that it was trained on are gone and cannot be asked.",
    )
    num_too_short: int = Field(
        0, description="Scored utterances that end within the look-ahead: nothing is found in them."
    )
    num_layers: int = Field(description="Number of its recurrent layers.")
    hidden_size: int = Field(description="Neurons per recurrent layer.")
    num_bits: int | None = Field(description="Bits of a spike; empty for dense models.")
    num_utterances: int = Field(description="How many utterances were scored.")
    num_frames: int = Field(description="Frames scored, without padding.")
    frame_shift_s: float = Field(description="Seconds from one frame of the network to the next.")
    error_rates: ErrorRates = Field(description="Error rates with intervals.")
    output_share: float | None = Field(
        None,
        description="Symbols put out over symbols of the reference: near 0 where nearly all were "
        "deleted, above 1 where more were inserted.",
    )
    parameters: ParameterCounts = Field(description="How many values were learned.")
    spike_density: tuple[float, ...] = Field(
        description="Share of non-zero outputs: encoder, then layers; empty for dense models."
    )
    multiplications_per_frame: MultiplicationCounts = Field(
        description="Multiplications that a frame takes, in both ways of counting."
    )
    additions_per_frame: float = Field(
        description="Additions that a frame takes, matrix and elementwise."
    )
    workload: WorkloadMetrics | None = Field(
        None, description="What a second of speech costs, and NeuroBench's measures."
    )
    saving: Saving = Field(description="Against dense models of the same size, audited counts.")
    saving_as_published: Saving = Field(description="The same by the authors' counts.")
    training_seconds: float = Field(description="Time of the training epochs together.")
    num_epochs: int = Field(description="Epochs that it was trained for.")

    @property
    def audited_per_s(self) -> float:
        """Multiplications of a second of speech, matrix terms, exact."""
        return self.multiplications_per_frame.audited / self.frame_shift_s

    @property
    def setting_name(self) -> str:
        """What it shares with the runs that differ in the seed alone."""
        return self.setting or self.label


class Spread(TypedConfig):
    """A value over several seeds."""

    mean: float = Field(description="Mean of the values over the seeds.")
    deviation: float | None = Field(
        description="Sample standard deviation over seeds; empty where there is one seed."
    )


class SettingMetrics(TypedConfig):
    """One setting over its seeds."""

    setting: str = Field(description="Name that the runs of this setting share.")
    model: str = Field(description="Which kind of recogniser it is, by its short name.")
    labels: tuple[str, ...] = Field(description="Names of its runs in this evaluation.")
    seeds: tuple[int, ...] = Field(description="Seeds of its runs, in the same order.")
    per: Spread | None = Field(description="Phone error rate, as a fraction.")
    wer: Spread | None = Field(description="Word error rate, as a fraction.")
    cer: Spread | None = Field(description="Character error rate, as a fraction.")
    parameters: ParameterCounts = Field(description="How many values were learned.")
    spike_density: tuple[Spread, ...] = Field(
        description="Share of non-zero outputs: encoder, then layers; empty for dense models."
    )
    audited: Spread = Field(description="Multiplications per frame, matrix terms, exact.")
    multiplications_per_s: Spread | None = Field(
        None, description="Multiplications per second of speech, matrix terms, exact."
    )
    as_published: Spread = Field(description="The same as the authors' script counts.")
    saving_gru: Spread | None = Field(description="GRU's audited count over this setting's.")
    saving_lstm: Spread | None = Field(description="LSTM's audited count over this setting's.")
    saving_gru_as_published: Spread | None = Field(description="GRU's by the authors' counts.")


class WordModelMetrics(TypedConfig):
    """The language model and lexicon that all word searches of an evaluation share."""

    language_model: str = Field(
        description="Address of the ARPA file, or of the text that it was estimated from."
    )
    num_sentences: int | None = Field(
        None, description="Sentences it was estimated from; empty where an ARPA file was given."
    )
    is_of_transcripts: bool = Field(
        False, description="Whether the sentences are the training transcripts."
    )
    num_ngrams: tuple[int, ...] = Field(description="N-grams of each order, from 1.")
    num_words: int = Field(description="Words that it gives a probability.")
    num_spelled: int = Field(description="Those that the lexicon can spell, and so can be found.")
    perplexity: float = Field(
        description="Per word and sentence end of the scored transcripts, unknown words left out."
    )
    unknown_share: float = Field(
        description="Share of the scored transcripts' words that cannot be found."
    )


class RateDifference(TypedConfig):
    """Error rate of one setting minus another's, paired by utterance, as a fraction.

    The rate of a setting is the mean over its seeds; the interval is over utterances.
    """

    model: str = Field(description="Name of the setting.")
    compared_with: str = Field(description="Name of the setting it is compared with.")
    rate: RateName = Field(description="Which of the error rates is compared.")
    value: float = Field(description="Difference; positive where the model errs more.")
    low: float = Field(description="Lower end of the 95% interval.")
    high: float = Field(description="Upper end of the 95% interval.")


class ScoredSubset(TypedConfig):
    """What the error rates rest on: a subset of the corpus, and what of it was scored."""

    num_scored: int = Field(description="Utterances that were scored, all of the feature set's.")
    left_out: dict[str, int] = Field(
        description="Those that featurizing, importing and aligning left out, by reason."
    )
    is_known: bool = Field(
        description="Whether all the stages before could be asked what they left out."
    )
    num_without_reference: int = Field(
        description="Scored ones without a symbol to find: whatever is found is an insertion."
    )


class EvaluationMetrics(TypedConfig):
    """The whole of ``metrics.json``."""

    schema_version: Literal[1] = METRICS_SCHEMA_VERSION
    features: str = Field(description="Address of the feature set.")
    subsets: tuple[str, ...] = Field(description="Names of the corpus subsets that were scored.")
    label_kind: LabelKind = Field(description="What the labels of the features are.")
    paper_corpus: PaperCorpus | None = Field(
        None,
        description="The corpus of the paper's results that this is, by its layout and its hours "
        "of training speech; empty for any other, on which the paper's claims get no verdict.",
    )
    primary_rate: RateName = Field(description="The error rate over the labels themselves.")
    word_model: WordModelMetrics | None = Field(
        None, description="Language model and lexicon of the word searches, if any."
    )
    utterances: dict[str, ScoredSubset] = Field(
        default_factory=dict, description="What was scored and what left out, by subset."
    )
    is_search_chosen_here: bool = Field(
        False,
        description="Whether weights of a search were chosen on utterances that are scored, of "
        "which the error rates are then a little too good.",
    )
    models: tuple[ModelMetrics, ...] = Field(description="The recognisers, in the order given.")
    settings: tuple[SettingMetrics, ...] = Field(
        (), description="The recognisers' settings over their seeds."
    )
    differences: tuple[RateDifference, ...] = Field(
        (), description="Between kinds of model, where both are there."
    )

    def primary(self, model: ModelMetrics) -> ErrorRate:
        """A model's error rate over the labels themselves."""
        return model.error_rates.known()[self.primary_rate]

    def seeds_of(self, model: ModelMetrics) -> list[ModelMetrics]:
        """The runs that differ from a model in the seed alone, itself included."""
        return [other for other in self.models if other.setting_name == model.setting_name]
