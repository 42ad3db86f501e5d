"""What one model did on all utterances, and the metrics that follow."""

import itertools
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from evaluation.config import DecoderName, ViterbiConfig, WordSearchConfig
from evaluation.metrics import (
    ErrorRate,
    ErrorRates,
    ModelMetrics,
    MultiplicationCounts,
    ParameterCounts,
    RateDifference,
    Saving,
)
from evaluation.multiplications import as_published, dense_cost, mean_nonzeros
from evaluation.scoring import Bootstrap, EditCounts, RateName
from evaluation.spike_raster import SpikeRaster
from evaluation.workload import StoredNetwork, workload
from training.manifest import TrainManifest
from training.models.counting import Activity, NetworkShape, audited, closed_form, count_terms
from training.models.model_config import SPIKING_MODELS

_BASELINES = ("lstm", "gru")


@dataclass(frozen=True)
class ShownUtterance:
    """An utterance shown in the report: scored symbols or words of reference and hypothesis."""

    utterance_id: str
    reference: tuple[str, ...]
    hypothesis: tuple[str, ...]


@dataclass
class ModelOutcome:
    """One model's results, gathered utterance by utterance."""

    label: str  # its name in this evaluation
    setting: str  # the name it shares with the runs that differ in the seed alone
    run: str  # address of its training run
    manifest: TrainManifest  # what the run says of itself
    shape: NetworkShape  # what its counts depend on
    parameters: ParameterCounts
    stored: StoredNetwork  # what its network takes up
    decoder: DecoderName
    viterbi: ViterbiConfig | None  # weights of the phone search, where it is used
    word_search: WordSearchConfig | None = None  # weights of the word search, where it is used
    # fingerprint of the graph of the search for symbols, where it is used
    symbol_graph: str | None = None
    word_graph: str | None = None  # the same of the word search
    # scored utterances that it was trained on; None where that is unknown
    has_heard: int | None = 0
    num_too_short: int = 0  # scored utterances in which it names no frame
    symbols: list[EditCounts] = field(default_factory=list)  # edits per utterance
    # edits of words per utterance; empty where the labels have no words
    words: list[EditCounts] = field(default_factory=list)
    activity: Activity | None = None  # summed over utterances; None before the first
    examples: list[ShownUtterance] = field(default_factory=list)  # a few utterances to show
    raster: SpikeRaster | None = None  # one utterance's spikes; None for a dense model

    def add(self, symbols: EditCounts, words: EditCounts | None, activity: Activity) -> None:
        """Take in one utterance."""
        self.symbols.append(symbols)
        self.num_too_short += activity.num_frames <= (self.manifest.config.target_delay or 0)
        if words is not None:
            self.words.append(words)
        self.activity = activity if self.activity is None else self.activity + activity


def first_rasters(outcomes: Sequence[ModelOutcome]) -> tuple[SpikeRaster, ...]:
    """The raster of the first model of each spiking kind: other seeds look the same."""
    first: dict[str, SpikeRaster] = {}
    for outcome in outcomes:
        if outcome.raster is not None:
            first.setdefault(outcome.shape.config.spec.name, outcome.raster)
    return tuple(first.values())


def _errors(edits: Sequence[EditCounts]) -> NDArray[np.int64]:
    return np.array([e.errors for e in edits], np.int64)


def _lengths(edits: Sequence[EditCounts]) -> NDArray[np.int64]:
    return np.array([e.reference_length for e in edits], np.int64)


def _error_rates(outcome: ModelOutcome, primary: RateName, bootstrap: Bootstrap) -> ErrorRates:
    def rate(edits: Sequence[EditCounts]) -> ErrorRate:
        return ErrorRate(**asdict(bootstrap.error_rate(_errors(edits), _lengths(edits))))

    wer = rate(outcome.words) if outcome.words else None
    if primary == "cer":
        return ErrorRates(cer=rate(outcome.symbols), wer=wer)
    return ErrorRates(per=rate(outcome.symbols), wer=wer)


def _output_share(edits: Sequence[EditCounts]) -> float:
    spoken = sum(e.reference_length for e in edits)
    return sum(e.reference_length + e.insertions - e.deletions for e in edits) / max(1, spoken)


def _saving(gru: float, lstm: float, own: float) -> Saving:
    if own == 0:
        return Saving(gru=None, lstm=None)
    return Saving(gru=gru / own, lstm=lstm / own)


def model_metrics(outcome: ModelOutcome, primary: RateName, bootstrap: Bootstrap) -> ModelMetrics:
    """Everything that ``metrics.json`` says of one model.

    Args:
        outcome: of at least one utterance.
        bootstrap: the draws, common to all models.
    """
    activity, shape, config = outcome.activity, outcome.shape, outcome.manifest.config
    assert activity is not None
    terms = count_terms(shape, activity)
    frames = max(1, activity.num_frames)
    means = mean_nonzeros(activity)
    counts = MultiplicationCounts(
        audited=audited(terms) / frames,
        as_published=as_published(shape, means),
        terms={term.term: term.multiplications / frames for term in terms},
        audited_closed_form=closed_form(shape, means),
    )
    gru, lstm = dense_cost(shape, "gru"), dense_cost(shape, "lstm")
    density = tuple(n / size for n, size in zip(means, shape.site_sizes, strict=True))
    return ModelMetrics(
        model=shape.config.spec.name,
        title=shape.config.spec.title,
        label=outcome.label,
        setting=outcome.setting,
        seed=config.seed,
        run=outcome.run,
        training_fingerprint=outcome.manifest.fingerprint,
        decoder=outcome.decoder,
        viterbi=outcome.viterbi,
        words=outcome.word_search,
        symbol_graph=outcome.symbol_graph,
        word_graph=outcome.word_graph,
        has_heard=outcome.has_heard,
        num_too_short=outcome.num_too_short,
        num_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        num_bits=shape.num_bits,
        num_utterances=len(outcome.symbols),
        num_frames=activity.num_frames,
        frame_shift_s=outcome.manifest.frame_shift_s,
        error_rates=_error_rates(outcome, primary, bootstrap),
        output_share=_output_share(outcome.symbols),
        parameters=outcome.parameters,
        spike_density=density if shape.is_event_based else (),
        multiplications_per_frame=counts,
        additions_per_frame=sum(term.additions for term in terms) / frames,
        workload=workload(
            shape,
            activity,
            outcome.stored,
            outcome.manifest.frame_shift_s,
            config.target_delay or 0,
        ),
        saving=_saving(gru[0], lstm[0], counts.audited),
        saving_as_published=_saving(gru[1], lstm[1], counts.as_published),
        training_seconds=sum(epoch.seconds for epoch in outcome.manifest.metrics),
        num_epochs=config.num_epochs,
    )


def paired_differences(
    outcomes: Sequence[ModelOutcome], primary: RateName, bootstrap: Bootstrap
) -> tuple[RateDifference, ...]:
    """Differences of error rates between kinds of model, each for the first setting of its kind.

    Several seeds of a setting count as one recogniser with their mean errors.

    Args:
        outcomes: of the same utterances in the same order.
    """
    first: dict[str, list[ModelOutcome]] = {}
    for outcome in outcomes:
        seeds = first.setdefault(outcome.shape.config.spec.name, [outcome])
        if outcome is not seeds[0] and outcome.setting == seeds[0].setting:
            seeds.append(outcome)
    found = []
    for name, other_name in _comparisons(first):
        ones, others = first[name], first[other_name]
        rates: list[RateName] = [primary, "wer"] if ones[0].words else [primary]
        for rate in rates:
            lengths_N = _lengths(_edits(ones[0], rate))
            errors_N, other_errors_N = _mean_errors(ones, rate), _mean_errors(others, rate)
            found.append(
                RateDifference(
                    model=ones[0].setting,
                    compared_with=others[0].setting,
                    rate=rate,
                    **asdict(bootstrap.difference(errors_N, other_errors_N, lengths_N)),
                )
            )
    return tuple(found)


def _comparisons(kinds: Collection[str]) -> list[tuple[str, str]]:
    """The paper's comparisons, every kind with every baseline, and spiking ones with the others."""
    others = [kind for kind in kinds if kind not in (*SPIKING_MODELS, *_BASELINES)]
    wanted = [
        ("v1", "v2"),
        ("conventional", "v1"),
        *itertools.product((*SPIKING_MODELS, *others), _BASELINES),
        *itertools.product(SPIKING_MODELS, others),
    ]
    return [(one, other) for one, other in wanted if one in kinds and other in kinds]


def _edits(outcome: ModelOutcome, rate: RateName) -> list[EditCounts]:
    return outcome.words if rate == "wer" else outcome.symbols


def _mean_errors(outcomes: Sequence[ModelOutcome], rate: RateName) -> NDArray[np.float64]:
    """Errors of each utterance, mean over seeds."""
    errors = [_errors(_edits(outcome, rate)) for outcome in outcomes]
    mean: NDArray[np.float64] = np.mean(errors, axis=0)
    return mean
