"""The plots that compare the models of an evaluation, and the list of all that it shows.

Each plot is a function of what the evaluation found to the plots it makes of that, none where it
does not apply; ``PLOTS`` lists them in the order of the report.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from evaluation.claims import title_of
from evaluation.figures import (
    INK,
    PAPER,
    TERM_STYLES,
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
from evaluation.learning_curves import draw_learning_curves
from evaluation.metrics import EvaluationMetrics
from evaluation.pareto import is_sweep, pareto_points
from evaluation.raster_plot import draw_raster
from evaluation.scoring import RATE_UNITS
from evaluation.spike_raster import SpikeRaster
from training.manifest import TrainManifest

_FILL_STYLES = ("full", "none", "left", "top")


@dataclass(frozen=True)
class Findings:
    """What there is to draw."""

    metrics: EvaluationMetrics
    trainings: Mapping[str, TrainManifest]  # training manifest of each model's label
    rasters: tuple[SpikeRaster, ...] = ()  # one utterance through spiking models


def rate_title(metrics: EvaluationMetrics) -> str:
    """The primary error rate's name."""
    return f"{RATE_UNITS[metrics.primary_rate].capitalize()} error rate"


def draw_plots(findings: Findings) -> tuple[Plot, ...]:
    """Draw everything that applies, in the order of ``PLOTS``."""
    with plot_style():
        return tuple(plot for draw in PLOTS for plot in draw(findings))


def _figure(width: float = 5.6, height: float = 4.0) -> tuple[Figure, Axes]:
    figure = new_figure(width, height)
    return figure, figure.add_subplot()


def error_against_cost(findings: Findings) -> tuple[Plot, ...]:
    """Error rate of every model against its multiplications."""
    metrics = findings.metrics
    figure, axes = _figure()
    spoken = []
    # A logarithmic axis has no zero: single-bit spikes, which need no product, stand at one.
    costs = [max(1.0, model.audited_per_s) for model in metrics.models]
    for model, cost in zip(metrics.models, costs, strict=True):
        rate = metrics.primary(model)
        same_kind = [m.label for m in metrics.models if m.model == model.model]
        axes.errorbar(
            cost,
            rate.value,
            yerr=[[rate.value - rate.low], [rate.high - rate.value]],
            fmt=marker_of(model.model),
            fillstyle=_FILL_STYLES[same_kind.index(model.label) % len(_FILL_STYLES)],
            markersize=9,
            capsize=4,
            color=colour_of(model.model),
            label=title_of(model),
        )
        spoken.append(f"{title_of(model)} {rate.value:.1%} at {short_count(cost)}")
    legend_below(figure, min(4, len(metrics.models)))
    axes.set_xscale("log")
    axes.set_xlim(min(costs) / 1.7, max(costs) * 1.7)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    wide = max(costs) > 100 * min(costs)
    axes.xaxis.set_minor_formatter(NullFormatter() if wide else FuncFormatter(minor_count))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_xlabel("Multiplications for a second of speech")
    axes.set_ylabel(f"{rate_title(metrics)}, 95% interval")
    title = "Errors against multiplications: lower left is better"
    alt = f"{title}. For a second of speech: {'; '.join(spoken)}."
    return (finish(figure, "error_against_multiplications", title, alt),)


def pareto_front(findings: Findings) -> tuple[Plot, ...]:
    """Every setting of a sweep, and the front of those that none beats."""
    metrics = findings.metrics
    if not is_sweep(metrics):
        return ()
    points = pareto_points(metrics)
    front = [point for point in points if point.is_on_front]
    figure, axes = _figure(8.4, 4.4 + 0.24 * ((len(points) + 1) // 2))
    axes.step(
        [max(1.0, point.multiplications) for point in front],
        [point.error for point in front],
        where="post",
        color=INK,
        linewidth=1.2,
        zorder=1,
    )
    for number, point in enumerate(points, start=1):
        kind = point.setting.model
        cost = max(1.0, point.multiplications)
        axes.plot(
            cost,
            point.error,
            marker=marker_of(kind),
            color=colour_of(kind),
            fillstyle="full" if point.is_on_front else "none",
            markersize=8,
            linestyle="none",
            label=f"{number}  {point.setting.setting}",
        )
        axes.annotate(
            str(number), (cost, point.error), xytext=(7, 5), textcoords="offset points", fontsize=9
        )
    figure.legend(loc="outside lower center", ncols=2, fontsize=8.5)
    axes.set_xscale("log")
    costs = [max(1.0, point.multiplications) for point in points]
    axes.set_xlim(min(costs) / 1.25, max(costs) * 1.25)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.xaxis.set_minor_formatter(FuncFormatter(minor_count))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_xlabel("Multiplications per frame (audited, logarithmic)")
    axes.set_ylabel(rate_title(metrics))
    title = "What accuracy costs: filled points are beaten by no other"
    spoken = "; ".join(
        f"{p.setting.setting} {p.error:.1%} at {short_count(p.multiplications)}" for p in front
    )
    alt = f"{title}. Beaten by no other, from the cheapest: {spoken}."
    return (finish(figure, "pareto_front", title, alt),)


def _term_group(term: str) -> str:
    return term.rsplit("_", 1)[0] if term[-1].isdigit() else term


def cost_by_term(findings: Findings) -> tuple[Plot, ...]:
    """Multiplications of every model, by term."""
    metrics = findings.metrics
    figure, axes = _figure(height=1.7 + 0.55 * len(metrics.models))
    labels = [model.label for model in metrics.models]
    left = [0.0] * len(labels)
    spoken: list[list[str]] = [[] for _ in labels]
    for group, (colour, hatch) in TERM_STYLES.items():
        widths = [
            sum(v for t, v in m.multiplications_per_frame.terms.items() if _term_group(t) == group)
            for m in metrics.models
        ]
        if not any(widths):
            continue
        name = group.replace("_", "-")
        axes.barh(
            labels,
            widths,
            left=left,
            height=0.62,
            color=colour,
            hatch=hatch,
            edgecolor=PAPER,
            linewidth=0.6,
            label=name,
        )
        left = [start + width for start, width in zip(left, widths, strict=True)]
        for words, width in zip(spoken, widths, strict=True):
            words.append(f"{name} {short_count(width)}")
    for number, total in enumerate(left):
        axes.annotate(
            short_count(total),
            (total, number),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_xlim(0, max(max(left), 1.0) * 1.13)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.set_xlabel("Multiplications per frame, elementwise included")
    title = "Where the multiplications of a frame go"
    legend_below(figure, 4)
    alt = f"{title}, per frame. " + "; ".join(
        f"{label}: {', '.join(words)}" for label, words in zip(labels, spoken, strict=True)
    )
    return (finish(figure, "multiplications_by_term", title, alt + "."),)


def site_names(num_layers: int) -> list[str]:
    """Encoder and layers, for people."""
    return ["encoder", *(f"layer {number + 1}" for number in range(num_layers))]


def density_by_site(findings: Findings) -> tuple[Plot, ...]:
    """How often the neurons of every spiking model fire, site by site."""
    metrics = findings.metrics
    spiking = [model for model in metrics.models if model.spike_density]
    if not spiking:
        return ()
    sites = site_names(max(len(model.spike_density) for model in spiking) - 1)
    figure, axes = _figure()
    width = 0.8 / len(spiking)
    spoken = []
    for number, model in enumerate(spiking):
        offset = (number - (len(spiking) - 1) / 2) * width
        positions = [site + offset for site in range(len(model.spike_density))]
        bars = axes.bar(
            positions,
            model.spike_density,
            width=width * 0.92,
            color=colour_of(model.model),
            hatch=("", "//", "..", "xx")[number % 4],
            edgecolor=PAPER,
            linewidth=0.6,
            label=model.label,
        )
        if len(spiking) * len(sites) <= 15:
            axes.bar_label(bars, [f"{value:.0%}" for value in model.spike_density], padding=2)
        values = ", ".join(f"{value:.1%}" for value in model.spike_density)
        spoken.append(f"{model.label} {values}")
    axes.set_xticks(range(len(sites)), sites)
    axes.grid(axis="x", visible=False)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_ylim(0, 1.12 * max(0.01, *(max(model.spike_density) for model in spiking)))
    axes.set_ylabel("Non-zero outputs")
    title = "Spike density: share of neurons that fire in a frame"
    if len(spiking) > 1:
        legend_below(figure, min(4, len(spiking)))
    alt = f"{title} of {', '.join(sites)}. {'; '.join(spoken)}."
    return (finish(figure, "spike_density", title, alt),)


def learning_curves(findings: Findings) -> tuple[Plot, ...]:
    """Error and loss over the epochs of every model's training."""
    labels = [model.label for model in findings.metrics.models]
    return (draw_learning_curves({label: findings.trainings[label] for label in labels}),)


def spike_rasters(findings: Findings) -> tuple[Plot, ...]:
    """One utterance through each spiking model that was captured."""
    return tuple(draw_raster(raster) for raster in findings.rasters)


PLOTS: tuple[Callable[[Findings], tuple[Plot, ...]], ...] = (
    error_against_cost,
    cost_by_term,
    pareto_front,
    density_by_site,
    learning_curves,
    spike_rasters,
)
"""Every plot of an evaluation; a new one is a function added here."""
