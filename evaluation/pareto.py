"""What no other beats in both accuracy and multiplications.

From left to right such a front says what the next point of error rate costs.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from evaluation.metrics import EvaluationMetrics, SettingMetrics

T = TypeVar("T")


def undominated(points: Iterable[T], place: Callable[[T], tuple[float, float]]) -> list[T]:
    """The points that no other beats in cost and error at once, the cheapest first.

    Args:
        place: cost and error of a point; of several in one place all are kept.

    Example:
        >>> undominated([(3, 1.0), (1, 5.0), (2, 6.0), (2, 4.0)], lambda point: point)
        [(1, 5.0), (2, 4.0), (3, 1.0)]
    """
    kept: list[T] = []
    for point in sorted(points, key=place):
        if not kept or place(point)[1] < place(kept[-1])[1] or place(point) == place(kept[-1]):
            kept.append(point)
    return kept


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
    front = undominated(plane, lambda point: point[1:])
    return tuple(
        ParetoPoint(*point, is_on_front=point in front)
        for point in sorted(plane, key=lambda point: point[1:])
    )


def is_sweep(metrics: EvaluationMetrics) -> bool:
    """Whether some kind of model comes with several settings, so that there is a choice."""
    kinds = [setting.model for setting in metrics.settings]
    return len(set(kinds)) < len(kinds)
