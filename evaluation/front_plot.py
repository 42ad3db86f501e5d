"""The front as a drawing: error rate against multiplications per second of speech."""

from collections.abc import Sequence

from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from evaluation.figures import (
    MODEL_COLOURS,
    MODEL_MARKERS,
    Plot,
    finish,
    legend_below,
    minor_count,
    new_figure,
    plot_style,
    short_count,
)
from evaluation.front import FrontPoint, interval, undominated
from evaluation.scoring import RATE_UNITS, RateName

_OTHER_COLOURS = ("#B15928", "#F0E442", "#7F7F7F", "#882255", "#44AA99", "#332288")
_OTHER_MARKERS = ("X", "p", "h", "<", ">", "*")


def _appearance(families: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each family; families without one of their own take the next."""
    others = [family for family in families if family not in MODEL_COLOURS]
    return {
        family: (
            MODEL_COLOURS.get(family) or _OTHER_COLOURS[others.index(family) % len(_OTHER_COLOURS)],
            MODEL_MARKERS.get(family) or _OTHER_MARKERS[others.index(family) % len(_OTHER_MARKERS)],
        )
        for family in families
    }


def draw_front(points: Sequence[FrontPoint], rate: RateName) -> Plot:
    """Every family with its own front as a line; intervals are over utterances.

    Args:
        points: at least one, all scored by ``rate``.
    """
    with plot_style():
        figure = new_figure(7.2, 4.8)
        axes = figure.subplots()
        families = list(dict.fromkeys(point.family for point in points))
        looks = _appearance(families)
        spoken = []
        for family in families:
            colour, marker = looks[family]
            own = [point for point in points if point.family == family]
            # Single-bit spikes need no product: they stand at one.
            costs = [max(1.0, point.multiplications_per_s) for point in own]
            estimates = [interval(point, rate).by_utterance for point in own]
            axes.errorbar(
                costs,
                [estimate.value for estimate in estimates],
                yerr=[
                    [estimate.value - estimate.low for estimate in estimates],
                    [estimate.high - estimate.value for estimate in estimates],
                ],
                fmt=marker,
                color=colour,
                markersize=7,
                capsize=3,
                label=family,
            )
            line = list(undominated(own, rate))
            axes.plot(
                [max(1.0, point.multiplications_per_s) for point in line],
                [point.rate(rate) for point in line],
                color=colour,
                linewidth=1.2,
                linestyle="-" if not own[0].is_dense else "--",
            )
            said = ", ".join(
                f"{p.rate(rate):.1%} at {short_count(p.multiplications_per_s)}" for p in line
            )
            spoken.append(f"{family}: {said}")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
        costs = [max(1.0, point.multiplications_per_s) for point in points]
        wide = max(costs) > 100 * min(costs)
        axes.xaxis.set_minor_formatter(NullFormatter() if wide else FuncFormatter(minor_count))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        axes.set_xlabel("Multiplications per second of speech (audited, logarithmic)")
        axes.set_ylabel(f"{RATE_UNITS[rate].capitalize()} error rate, 95% interval")
        title = "Error rate against multiplications per second of speech"
        axes.set_title(f"{title}: lower left is better", loc="left", fontsize=11)
        legend_below(figure, min(6, len(families)))
        alt = f"{title}. From the cheapest, of each family: {'; '.join(spoken)}."
        return finish(figure, f"front_{rate}", title, alt)
