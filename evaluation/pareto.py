"""Which settings no other setting beats in both accuracy and multiplications.

A sweep ends on this: from left to right the front says what the next point of error rate costs.
"""

from collections.abc import Sequence
from typing import NamedTuple

from evaluation.metrics import EvaluationMetrics, SettingMetrics


class ParetoPoint(NamedTuple):
    """A setting in the plane of cost and error."""

    setting: SettingMetrics  # its metrics
    multiplications: float  # per frame, audited, mean over seeds
    error: float  # the primary error rate as a fraction, mean over seeds
    # whether no setting has fewer multiplications and errs no more, or errs less at no more
    # multiplications
    is_on_front: bool


def pareto_points(metrics: EvaluationMetrics) -> tuple[ParetoPoint, ...]:
    """Every setting, cheapest first."""
    rate = metrics.primary_rate
    plane = [(s, s.audited.mean, float(getattr(s, rate).mean)) for s in metrics.settings]
    return tuple(
        ParetoPoint(setting, cost, error, not _is_beaten(cost, error, plane))
        for setting, cost, error in sorted(plane, key=lambda point: point[1:])
    )


def _is_beaten(
    cost: float, error: float, plane: Sequence[tuple[SettingMetrics, float, float]]
) -> bool:
    return any(
        other_cost <= cost and other_error <= error and (other_cost, other_error) != (cost, error)
        for _, other_cost, other_error in plane
    )


def is_sweep(metrics: EvaluationMetrics) -> bool:
    """Whether some kind of model comes with several settings, so that there is a choice."""
    kinds = [setting.model for setting in metrics.settings]
    return len(set(kinds)) < len(kinds)
