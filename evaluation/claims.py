"""What the numbers mean, in plain words, beside what the paper claims.

The paper: Ponghiran & Roy 2022, arXiv 2109.01905, on TIMIT and LibriSpeech 100 h, decoded with an
HMM graph. Its claims are there to compare with, not to expect: other corpora and recipes differ.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from evaluation.metrics import EvaluationMetrics, ModelMetrics, RateDifference
from evaluation.scoring import RATE_UNITS, RateName
from evaluation.working import comparable, failure_line, works
from training.models.registry import title_of as title_of_kind

Verdict = Literal["holds", "does not hold", "undecided"]

# Points by which v2 may err more than an LSTM and still be as close as the paper says (TIMIT).
_CLOSE_POINTS = 1.10
_PARAMETER_RATIO = (1.8, 2.2)
_SILENT_BELOW = 0.002


@dataclass(frozen=True)
class PaperClaim:
    """One claim of the paper and what this evaluation says to it."""

    claim: str
    timit: str  # the paper's figure on TIMIT, empty where it gives none
    librispeech: str  # the paper's figure on LibriSpeech 100 h
    here: str  # this evaluation's figure
    verdict: Verdict  # whether the claim holds here


def title_of(model: ModelMetrics) -> str:
    """The model's name in a sentence; with its run where a kind comes twice."""
    return _title(model, model.label)


def _title(model: ModelMetrics, name: str) -> str:
    # A minus belongs to its number: v2-learning_rate=1e-05-penalty=-3 has two settings.
    parts = re.sub(r"(=-?[\d.]+(?:e[-+]?\d+)?)|-", lambda m: m[1] or " ", name)
    settings = parts.removeprefix(model.model)
    return (model.title or title_of_kind(model.model)) + settings


def setting_title(metrics: EvaluationMetrics, model: ModelMetrics) -> str:
    """The name of a model's setting in a sentence, with its number of seeds."""
    count = len(metrics.seeds_of(model))
    return _title(model, model.setting_name) + (f" (mean of {count} seeds)" if count > 1 else "")


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of savings; none where one is unbounded."""
    known = list(values)
    finite = [value for value in known if value is not None]
    return sum(finite) / len(finite) if len(finite) == len(known) else None


def _mean_savings(
    metrics: EvaluationMetrics, model: ModelMetrics
) -> tuple[float | None, float | None]:
    """Saving over a GRU, mean over seeds: audited, as published."""
    seeds = metrics.seeds_of(model)
    audited = _mean(seed.saving.gru for seed in seeds)
    return audited, _mean(seed.saving_as_published.gru for seed in seeds)


def points(difference: RateDifference) -> str:
    """A difference of error rates in percentage points with its interval."""
    low, high = 100 * difference.low, 100 * difference.high
    return f"{100 * difference.value:+.2f} points (95% interval {low:+.2f} to {high:+.2f})"


def _first(metrics: EvaluationMetrics, kind: str) -> ModelMetrics | None:
    return next((model for model in metrics.models if model.model == kind), None)


def _difference(
    metrics: EvaluationMetrics, one: ModelMetrics, other: ModelMetrics, rate: RateName | None = None
) -> RateDifference | None:
    wanted = (one.setting_name, other.setting_name, rate or metrics.primary_rate)
    for difference in metrics.differences:
        if (difference.model, difference.compared_with, difference.rate) == wanted:
            return difference
    return None


def _in_points(metrics: EvaluationMetrics, one: ModelMetrics, other: ModelMetrics) -> str:
    """The difference over the labels, which the verdict is by, and that of words beside it."""
    found = _difference(metrics, one, other)
    assert found is not None
    words = _difference(metrics, one, other, "wer")
    return points(found) + ("" if words is None else f"; words {points(words)}")


def summary_lines(metrics: EvaluationMetrics) -> list[str]:
    """The result in sentences, each from the numbers alone."""
    models = metrics.models
    rate = f"{RATE_UNITS[metrics.primary_rate]} error rate"
    first = models[0]
    hours = first.num_frames * first.frame_shift_s / 3600
    lines = [
        f"{len(models)} recogniser{'s' if len(models) > 1 else ''} on {first.num_utterances} "
        f"utterances ({spoken_duration(hours)}) of {', '.join(metrics.subsets)}."
    ]
    lines += _missing_lines(metrics)
    lines += _heard_lines(metrics)
    if metrics.is_search_chosen_here:
        lines.append(
            "The searches' weights were chosen on these utterances: the error rates are a little "
            "too good."
        )
    best = min(models, key=lambda model: metrics.primary(model).value)
    if works(best, metrics):
        lowest = f"{100 * metrics.primary(best).value:.2f}%"
        lines.append(f"The lowest {rate} is {lowest}, by the {title_of(best)}.")
    lines += [
        failure_line(model, setting_title(metrics, model), metrics)
        for model in models
        if model is metrics.seeds_of(model)[0] and not works(model, metrics)
    ]
    lines += _word_lines(metrics)
    for model in models:
        if not model.spike_density:
            continue
        if model is metrics.seeds_of(model)[0]:
            lines += _spiking_lines(metrics, model)
        lines += _silence_lines(model)
    return lines


def _heard_lines(metrics: EvaluationMetrics) -> list[str]:
    """Scores of what a model was trained on say nothing about speech that it does not know."""
    unknown = [title_of(model) for model in metrics.models if model.has_heard is None]
    lines = [
        f"Whether the {title} has heard these utterances is not known: the features that it was "
        "trained on are gone."
        for title in unknown
    ]
    heard = [model for model in metrics.models if model.has_heard]
    if not heard:
        return lines
    most = max(heard, key=lambda model: model.has_heard or 0)
    return [
        *lines,
        f"{most.has_heard} of the {most.num_utterances} scored utterances were in the training of "
        f"the {title_of(most)}: its error rates say nothing about speech that it has not heard.",
    ]


def _missing_lines(metrics: EvaluationMetrics) -> list[str]:
    """Utterances of the corpus that the error rates do not rest on, or cannot judge."""
    lines = []
    for subset, info in metrics.utterances.items():
        if num_left_out := sum(info.left_out.values()):
            reasons = ", ".join(f"{reason} {count}" for reason, count in info.left_out.items())
            lines.append(
                f"{num_left_out} of {info.num_scored + num_left_out} utterances of {subset} are "
                f"not among them, left out before: {reasons}."
            )
        if info.num_without_reference:
            lines.append(
                f"{info.num_without_reference} utterances of {subset} have nothing to find: all "
                "that is found in them is an insertion."
            )
    if not all(info.is_known for info in metrics.utterances.values()):
        lines.append(
            "How many more an earlier stage left out is not known: the features before the "
            "alignment are gone."
        )
    return lines + [
        f"{model.num_too_short} utterances are too short for the look-ahead of the "
        f"{title_of(model)}, which finds nothing in them."
        for model in metrics.models
        if model.num_too_short
    ]


def spoken_duration(hours: float) -> str:
    """Hours, minutes or seconds, in words."""
    if hours >= 1:
        return f"{hours:.1f} hours"
    return f"{60 * hours:.0f} minutes" if hours >= 1 / 60 else f"{3600 * hours:.0f} seconds"


def _word_lines(metrics: EvaluationMetrics) -> list[str]:
    """The best word error rate, and what it owes to the language model."""
    rated = [(m.error_rates.wer.value, m) for m in metrics.models if m.error_rates.wer is not None]
    if not rated or metrics.word_model is None:
        return []
    value, best = min(rated, key=lambda pair: pair[0])
    words = metrics.word_model
    source = words.language_model
    if words.num_sentences is not None:
        of = "training transcripts" if words.is_of_transcripts else f"sentences of {source}"
        source = f"estimated from {words.num_sentences:,} {of}"
    return [
        f"The lowest word error rate is {100 * value:.2f}%, by the {title_of(best)}: with a "
        f"{len(words.num_ngrams)}-gram model of {words.num_spelled:,} words ({source}), perplexity "
        f"{words.perplexity:.0f}; {words.unknown_share:.1%} of the words spoken are not in it."
    ]


def _silence_lines(model: ModelMetrics) -> list[str]:
    """A network that hardly fires is cheap for the wrong reason, which must be said."""
    silent = [
        f"layer {number} fires in {share:.2%} of its neurons and frames"
        for number, share in enumerate(model.spike_density[1:], start=1)
        if share < _SILENT_BELOW
    ]
    if not silent:
        return []
    return [
        f"The {title_of(model)} is nearly silent ({'; '.join(silent)}): it carries hardly any "
        "information, and its low count is no saving."
    ]


def _spiking_lines(metrics: EvaluationMetrics, model: ModelMetrics) -> list[str]:
    title = setting_title(metrics, model)
    dense = _first(metrics, "gru") or _first(metrics, "lstm")
    saving, published = _mean_savings(metrics, model)
    if saving is None:
        cost = "needs no multiplications in its matrix products, only additions"
    else:
        cost = f"needs {factor(saving)} multiplications than a GRU of the same size"
    if published is not None:
        cost += f" ({published:.2f} times by the paper's way of counting)"
    if dense is None:
        return [f"The {title} {cost}; no dense model is in this comparison."]
    difference = _difference(metrics, model, dense)
    if difference is None:
        return [f"The {title} {cost}."]
    reference = setting_title(metrics, dense)
    if not (works(model, metrics) and works(dense, metrics)):
        return [f"The {title} {cost}; its errors and the {reference}'s are not compared."]
    return [f"The {title} is {compared(difference)} the {reference}, and {cost}."]


def factor(ratio: float) -> str:
    """A saving in words: fewer where it is one, more where it is not."""
    if ratio >= 1:
        return f"{ratio:.2f} times fewer"
    return f"{1 / ratio:.2f} times more"


def compared(difference: RateDifference) -> str:
    """A difference in words, ready for the other model's name, with its interval."""
    size = f"{abs(100 * difference.value):.2f} points"
    low, high = 100 * difference.low, 100 * difference.high
    interval = f"95% interval of the difference {low:+.2f} to {high:+.2f}"
    if difference.low <= 0 <= difference.high:
        side = "above" if difference.value > 0 else "below"
        return f"not clearly apart ({size} {side}; {interval}) from"
    word = "worse" if difference.value > 0 else "better"
    return f"{size} {word} ({interval}) than"


def paper_claims(metrics: EvaluationMetrics) -> list[PaperClaim]:
    """The paper's claims that the models of this evaluation can answer."""
    claims = []
    v2, lstm, v1 = _first(metrics, "v2"), _first(metrics, "lstm"), _first(metrics, "v1")
    conventional = _first(metrics, "conventional")
    pairs = (
        (v2, lstm, "v2 errs little more than an LSTM (points)", "1.10", "0.36"),
        (v1, v2, "v1 errs more than v2 (points)", "1.64", "5.57"),
        (conventional, v1, "the conventional SNN errs more than v1 (points)", "8.98", "9.84"),
    )
    for one, other, claim, timit, librispeech in pairs:
        if one and other and (found := _difference(metrics, one, other)):
            verdict: Verdict = "undecided"
            if comparable(one, other, metrics) and (other is not lstm or works(other, metrics)):
                verdict = _within(found) if other is lstm else _more(found)
            here = _in_points(metrics, one, other)
            claims.append(PaperClaim(claim, timit, librispeech, here, verdict))
    if v2 and lstm and (v2.num_layers, v2.hidden_size) == (lstm.num_layers, lstm.hidden_size):
        ratio = lstm.parameters.recurrent_layers / v2.parameters.recurrent_layers
        low, high = _PARAMETER_RATIO
        verdict = "holds" if low <= ratio <= high else "does not hold"
        claim = "recurrent-layer parameters, LSTM over v2"
        claims.append(PaperClaim(claim, "2", "2", f"{ratio:.2f}", verdict))
    if v2:
        claims.append(_saving_claim(metrics, v2, "10.13", "11.14", 10.13))
    if v1:
        claims.append(_saving_claim(metrics, v1, "4.37 to 5.40", "", 4.37))
    return claims


def _within(difference: RateDifference) -> Verdict:
    if 100 * difference.high <= _CLOSE_POINTS:
        return "holds"
    return "does not hold" if 100 * difference.low > _CLOSE_POINTS else "undecided"


def _more(difference: RateDifference) -> Verdict:
    if difference.low > 0:
        return "holds"
    return "does not hold" if difference.high < 0 else "undecided"


def _saving_claim(
    metrics: EvaluationMetrics, model: ModelMetrics, timit: str, librispeech: str, least: float
) -> PaperClaim:
    """Compared by the paper's own way of counting; the audited ratio stands beside it."""
    audited, published = _mean_savings(metrics, model)
    here = "no multiplications" if audited is None else f"{audited:.2f} audited"
    if published is not None:
        here = f"{published:.2f} as published, {here}"
    reached = published is not None and published >= least
    verdict: Verdict = "holds" if reached else "does not hold"
    if not works(model, metrics):
        verdict = "undecided"
    return PaperClaim(f"multiplications, GRU over {model.model}", timit, librispeech, here, verdict)
