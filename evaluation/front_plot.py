"""The front as a drawing: error rate against multiplications per second of speech."""

from collections.abc import Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter
from matplotlib.typing import FillStyleType

from evaluation.figures import (
    PAPER,
    Plot,
    colour_of,
    finish,
    legend_below,
    marker_of,
    minor_count,
    new_figure,
    plot_style,
    short_count,
)
from evaluation.front import Aid, FrontPoint, interval
from evaluation.pareto import undominated
from evaluation.scoring import RATE_UNITS, RateName

_FILLED: dict[Aid, FillStyleType] = {"teacher": "left", "masks": "bottom", "pruning": "none"}
"""How much of a marker is filled where a family has this beside its training."""
_NOTE_WIDTH = 80
"""Characters of a line of what stands in the picture's corner."""
_TITLE = "Error rate against multiplications per second of speech"


def _cost(point: FrontPoint) -> float:
    """Single-bit spikes need no product: they stand at one."""
    return max(1.0, point.multiplications_per_s)


def _draw_family(axes: Axes, family: str, own: Sequence[FrontPoint], rate: RateName) -> str:
    """A family's points and its own front; returns what they say.

    A kind of model has one colour and marker, a star where it is another configuration of it; what
    is taught, trained longer or pruned has a marker that is not full.
    """
    kind, aids = own[0].runs[0].metrics.model, own[0].aids
    colour = colour_of(kind)
    is_other = not aids and family != kind
    estimates = [interval(point, rate).by_utterance for point in own]
    axes.errorbar(
        [_cost(point) for point in own],
        [estimate.value for estimate in estimates],
        yerr=[
            [estimate.value - estimate.low for estimate in estimates],
            [estimate.high - estimate.value for estimate in estimates],
        ],
        fmt="*" if is_other else marker_of(kind),
        color=colour,
        fillstyle=next((_FILLED[aid] for aid in sorted(aids) if aid in _FILLED), "full"),
        markerfacecoloralt=PAPER,
        markersize=11 if is_other else 7,
        elinewidth=1.0,
        capsize=2,
        label=family,
    )
    line = undominated(own, lambda p: p.place(rate))
    style = "--" if own[0].is_dense else "-"
    axes.plot(
        [_cost(point) for point in line],
        [point.rate(rate) for point in line],
        color=colour,
        linewidth=1.2,
        linestyle=":" if aids else style,
    )
    said = ", ".join(f"{p.rate(rate):.1%} at {short_count(p.multiplications_per_s)}" for p in line)
    return f"{family}: {said}"


def crop(points: Sequence[FrontPoint], rate: RateName) -> tuple[float | None, str]:
    """The error above which nothing is drawn, and what that leaves out, in words.

    A few points far above would press all others together: the picture ends a quarter above the
    worst dense point, where there is one; None where nothing lies above.
    """
    dense = [point.rate(rate) for point in points if point.is_dense]
    top = 1.25 * max(dense) if dense else float("inf")
    above: dict[str, list[FrontPoint]] = {}
    for point in points:
        if point.rate(rate) > top:
            above.setdefault(point.family, []).append(point)
    said = ", ".join(f"{family} {_spoken(own, rate)}" for family, own in above.items())
    return (top, f"above the picture: {said}") if above else (None, "")


def _spoken(points: Sequence[FrontPoint], rate: RateName) -> str:
    """One point in words, or between which errors several lie."""
    errors = [point.rate(rate) for point in points]
    if len(points) > 1:
        return f"{min(errors):.1%} to {max(errors):.1%}"
    return f"{errors[0]:.1%} at {short_count(points[0].multiplications_per_s)}"


def draw_front(points: Sequence[FrontPoint], rate: RateName, name: str = "front") -> Plot:
    """Every family with its own front as a line; intervals are over utterances.

    Variants of another entry (``FrontPoint.variant_of``) are left to the tables.

    Args:
        points: at least one, all scored by ``rate``.
        name: of the page; with the rate that of the plot.
    """
    with plot_style():
        figure = new_figure(7.2, 4.8)
        axes = figure.subplots()
        shown = [point for point in points if point.variant_of is None] or list(points)
        families = list(dict.fromkeys(point.family for point in shown))
        spoken = [
            _draw_family(axes, family, [p for p in shown if p.family == family], rate)
            for family in families
        ]
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
        costs = [_cost(point) for point in shown]
        wide = max(costs) > 100 * min(costs)
        axes.xaxis.set_minor_formatter(NullFormatter() if wide else FuncFormatter(minor_count))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        top, said = crop(shown, rate)
        axes.set_ylim(top=top)
        # Not in the layout: long words would squeeze the axes instead of being broken.
        note = axes.text(1.0, 0.97, fill(said, _NOTE_WIDTH), transform=axes.transAxes)
        note.set(ha="right", va="top", fontsize=8, in_layout=False)
        axes.set_xlabel("Multiplications per second of speech (audited, logarithmic)")
        axes.set_ylabel(f"{RATE_UNITS[rate].capitalize()} error rate, 95% interval")
        axes.set_title(f"{_TITLE}: lower left is better", loc="left", fontsize=11)
        legend_below(figure, min(6, len(families)))
        alt = f"{_TITLE}. From the cheapest, of each family: {'; '.join(spoken)}."
        return finish(figure, f"{name}_{rate}", _TITLE, alt)
