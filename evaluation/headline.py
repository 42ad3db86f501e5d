"""The result in one sentence, one reservation and three numbers, for a reader with ten seconds.

A spiking recogniser is compared at equal error, or at equal multiplications, never at equal size
alone: a smaller dense network is always the other choice. So the dense network that is named is the
cheapest of those that err no more; and where none is about as cheap as the spiking one, that is
said. Recognisers that do not work (``evaluation.working``) are compared with none.
"""

from dataclasses import dataclass
from typing import NamedTuple

from evaluation.claims import setting_title
from evaluation.figures import short_count
from evaluation.metrics import EvaluationMetrics, ModelMetrics, RateDifference
from evaluation.scoring import RATE_UNITS
from evaluation.working import failure_line, works

_EQUAL_COST = 1.25
"""Two costs whose ratio is at most this are about equal."""
_TOO_WIDE = 0.06
"""A 95% interval of a difference wider than this tells nothing apart."""


class HeadlineNumber(NamedTuple):
    """A large number and what it is."""

    value: str
    meaning: str


class Headline(NamedTuple):
    """The result for a reader with ten seconds."""

    sentence: str  # what came out
    reservation: str  # what must be known beside it; may be empty
    numbers: tuple[HeadlineNumber, ...]  # three


@dataclass(frozen=True)
class Contestant:
    """A setting over its seeds."""

    first: ModelMetrics
    title: str  # its name in a sentence
    error: float  # the primary error rate, mean over seeds
    cost: float  # audited multiplications a second of speech, mean over seeds


def contestants(metrics: EvaluationMetrics) -> list[Contestant]:
    """Every setting, in the order of the comparison."""
    found = {model.setting_name: metrics.seeds_of(model) for model in metrics.models}
    return [
        Contestant(
            runs[0],
            setting_title(metrics, runs[0]),
            sum(metrics.primary(run).value for run in runs) / len(runs),
            sum(run.audited_per_s for run in runs) / len(runs),
        )
        for runs in found.values()
    ]


def headline(metrics: EvaluationMetrics) -> Headline:
    """What an evaluation says first."""
    everyone = contestants(metrics)
    working = [one for one in everyone if works(one.first, metrics)]
    spiking = [one for one in everyone if one.first.spike_density]
    dense = [one for one in working if not one.first.spike_density]
    if not spiking:
        best = min(everyone, key=lambda one: one.error)
        return _alone(metrics, best, "No spiking recogniser is in this comparison.")
    ours = min(spiking, key=lambda one: one.error)
    if ours not in working:
        return _alone(metrics, ours, "")
    if not dense:
        others = [one for one in everyone if not one.first.spike_density]
        reason = "No dense network is in this comparison."
        if others:
            reason = failure_line(others[0].first, others[0].title, metrics)
        return _alone(metrics, ours, reason)
    return _beside(metrics, ours, dense)


def _alone(metrics: EvaluationMetrics, one: Contestant, reservation: str) -> Headline:
    """One recogniser that is compared with none."""
    kind = f"{RATE_UNITS[metrics.primary_rate]} errors"
    if works(one.first, metrics):
        sentence = f"The {one.title} makes {one.error:.1%} {kind}."
    else:
        sentence, _, reservation = failure_line(one.first, one.title, metrics).partition(". ")
        sentence += "."
    return Headline(
        sentence,
        reservation,
        (
            HeadlineNumber(f"{one.error:.1%}", f"{kind} of the {one.title}"),
            HeadlineNumber(short_count(one.cost), "multiplications for a second of speech"),
            HeadlineNumber(short_count(one.first.parameters.total), "learned values"),
        ),
    )


def _beside(metrics: EvaluationMetrics, ours: Contestant, dense: list[Contestant]) -> Headline:
    apart = {one.title: difference(metrics, ours, one) for one in dense}
    as_good = [one for one in dense if apart[one.title].high > 0]
    equal_cost = [one for one in dense if _is_equal_cost(ours, one)]
    if as_good:
        other = min(as_good, key=lambda one: one.cost)
    else:
        other = min(dense, key=lambda one: one.error)
    if equal_cost and apart[other.title].low > 0 and not _is_equal_cost(ours, other):
        # Errors differ, so equal multiplications say more.
        other = min(equal_cost, key=lambda one: one.error)
    kind = f"{RATE_UNITS[metrics.primary_rate]} errors"
    return Headline(
        _sentence(ours, other, apart[other.title]),
        _reservation(ours, other, dense, apart),
        (
            HeadlineNumber(f"{ours.error:.1%}", f"{kind} of the {ours.title}"),
            HeadlineNumber(f"{other.error:.1%}", f"{kind} of the {other.title}"),
            _saving(ours, other),
        ),
    )


def difference(metrics: EvaluationMetrics, one: Contestant, other: Contestant) -> RateDifference:
    """Errors of one less those of another, paired by utterance where that was measured.

    Else the interval is that of two rates which know nothing of each other, too wide rather than
    too narrow.
    """
    names = (one.first.setting_name, other.first.setting_name)
    for found in metrics.differences:
        if found.rate != metrics.primary_rate:
            continue
        if (found.model, found.compared_with) == names:
            return found
        if (found.compared_with, found.model) == names:
            turned = {"value": -found.value, "low": -found.high, "high": -found.low}
            return found.model_copy(update=turned)
    lows, highs = zip(*(_bounds(metrics, contestant) for contestant in (one, other)), strict=True)
    return RateDifference(
        model=names[0],
        compared_with=names[1],
        rate=metrics.primary_rate,
        value=one.error - other.error,
        low=lows[0] - highs[1],
        high=highs[0] - lows[1],
    )


def _bounds(metrics: EvaluationMetrics, one: Contestant) -> tuple[float, float]:
    """The intervals of all its seeds, taken together."""
    rates = [metrics.primary(run) for run in metrics.seeds_of(one.first)]
    return min(rate.low for rate in rates), max(rate.high for rate in rates)


def _is_equal_cost(ours: Contestant, other: Contestant) -> bool:
    return 1 / _EQUAL_COST <= other.cost / max(1.0, ours.cost) <= _EQUAL_COST


def _sentence(ours: Contestant, other: Contestant, apart: RateDifference) -> str:
    if apart.low <= 0 <= apart.high:
        if apart.high - apart.low > _TOO_WIDE:
            return (
                f"Too little test speech to tell the {ours.title} and the {other.title} apart; "
                f"the {ours.title} {_needs(ours, other)}."
            )
        if other.cost < ours.cost and not _is_equal_cost(ours, other):
            return (
                f"The {other.title} is as accurate as the {ours.title} within noise, and "
                f"{_needs(other, ours)}: spikes save nothing here."
            )
        return (
            f"The {ours.title} is as accurate as the {other.title} within noise, and "
            f"{_needs(ours, other)}."
        )
    compared = (
        f"makes {'more' if apart.value > 0 else 'fewer'} errors than the {other.title} "
        f"({ours.error:.1%} against {other.error:.1%})"
    )
    if apart.value > 0 and other.cost < ours.cost and not _is_equal_cost(ours, other):
        return (
            f"The {ours.title} {compared}, which {_needs(other, ours)}: spikes save nothing here."
        )
    # One is better in errors, the other in multiplications.
    is_bargain = (apart.value > 0) == (ours.cost < other.cost) and not _is_equal_cost(ours, other)
    return f"The {ours.title} {compared}, {'but' if is_bargain else 'and'} {_needs(ours, other)}."


def _needs(one: Contestant, other: Contestant) -> str:
    if one.cost == 0:
        return "needs no multiplications, only additions"
    if _is_equal_cost(one, other):
        return "needs about as many multiplications"
    ratio = other.cost / one.cost
    if ratio > 1:
        return f"needs {ratio:.1f} times fewer multiplications"
    return f"needs {1 / ratio:.1f} times more multiplications"


def _saving(ours: Contestant, other: Contestant) -> HeadlineNumber:
    # A count and its unit stay on one line.
    costs = " in place of ".join(
        short_count(one.cost).replace(" ", "\u00a0") for one in (ours, other)
    )
    if ours.cost == 0:
        return HeadlineNumber("0", "multiplications: single-bit spikes are added up")
    ratio = other.cost / ours.cost
    more = "fewer" if ratio >= 1 else "more"
    meaning = f"{more} multiplications for a second of speech: {costs}"
    return HeadlineNumber(f"{max(ratio, 1 / ratio):.1f}x", meaning)


def _reservation(
    ours: Contestant, other: Contestant, dense: list[Contestant], apart: dict[str, RateDifference]
) -> str:
    """What the sentence leaves out: the other way to compare, or that it was not tried."""
    if not any(one.cost <= _EQUAL_COST * ours.cost for one in dense):
        kind = other.first.model.upper()
        return (
            f"A smaller {kind} might do as well: no dense network of so few multiplications was "
            "tried."
        )
    rivals = [one for one in dense if one is not other and _is_equal_cost(ours, one)]
    if not rivals:
        return ""
    rival = min(rivals, key=lambda one: one.error)
    return _sentence(ours, rival, apart[rival.title])
