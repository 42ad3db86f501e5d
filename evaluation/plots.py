"""The plots of an evaluation, as PNG.

Colours are Okabe and Ito's, which stay apart for colour-blind readers; markers and hatches repeat
what they say. Each model keeps its colour in every plot.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from evaluation.metrics import ErrorRate, EvaluationMetrics, ModelMetrics
from evaluation.pareto import is_sweep, pareto_points
from training.manifest import TrainManifest

MODEL_COLOURS = {
    "v2": "#0072B2",
    "v1": "#56B4E9",
    "conventional": "#E69F00",
    "gru": "#D55E00",
    "lstm": "#CC79A7",
}
MODEL_MARKERS = {"v2": "o", "v1": "s", "conventional": "^", "gru": "D", "lstm": "v"}
_TERM_COLOURS = {
    "feed_forward": ("#0072B2", ""),
    "recurrent": ("#E69F00", "//"),
    "output": ("#009E73", ".."),
    "elementwise": ("#999999", "xx"),
}
_FILL_STYLES = ("full", "none", "left", "top")
_LINE_STYLES = ("-", "--", ":", "-.")
_RATE_NAMES = {"per": "Phone error rate", "wer": "Word error rate", "cer": "Character error rate"}
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Plot:
    """A finished plot.

    Attributes:
        name: file name without its ending.
        title: heading for people.
        alt: what it shows, in words, for readers who do not see it.
        png: the image.
    """

    name: str
    title: str
    alt: str
    png: bytes


def primary_error(model: ModelMetrics, metrics: EvaluationMetrics) -> ErrorRate:
    """The error rate over the labels themselves."""
    rate: ErrorRate | None = getattr(model.error_rates, metrics.primary_rate)
    assert rate is not None
    return rate


def rate_title(metrics: EvaluationMetrics) -> str:
    """The primary error rate's name."""
    return _RATE_NAMES[metrics.primary_rate]


def draw_plots(
    metrics: EvaluationMetrics, trainings: Mapping[str, TrainManifest]
) -> tuple[Plot, ...]:
    """Draw everything that applies.

    Args:
        metrics: the evaluation.
        trainings: training manifest of each model's label, for the learning curves.
    """
    with matplotlib.rc_context(_STYLE):
        plots = [_error_against_cost(metrics), _cost_by_term(metrics)]
        if is_sweep(metrics):
            plots.append(_pareto_front(metrics))
        if any(model.spike_density for model in metrics.models):
            plots.append(_density_by_site(metrics))
        plots.append(_learning_curves(metrics, trainings))
    return tuple(plots)


def _figure(width: float = 7.2, height: float = 4.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=144, facecolor="white")
    return stream.getvalue()


def short_count(value: float) -> str:
    """A count in at most four characters and a unit: 950, 12.3 k, 1.24 M."""
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def _error_against_cost(metrics: EvaluationMetrics) -> Plot:
    figure, axes = _figure()
    spoken = []
    # A logarithmic axis has no zero: single-bit spikes, which need no product, stand at one.
    costs = [max(1.0, m.multiplications_per_frame.audited) for m in metrics.models]
    for model, cost in zip(metrics.models, costs, strict=True):
        rate = primary_error(model, metrics)
        same_kind = [m.label for m in metrics.models if m.model == model.model]
        axes.errorbar(
            cost,
            rate.value,
            yerr=[[rate.value - rate.low], [rate.high - rate.value]],
            fmt=MODEL_MARKERS[model.model],
            fillstyle=_FILL_STYLES[same_kind.index(model.label) % len(_FILL_STYLES)],
            markersize=9,
            capsize=4,
            color=MODEL_COLOURS[model.model],
            label=model.label,
        )
        spoken.append(f"{model.label} {rate.value:.1%} at {short_count(cost)}")
    figure.legend(loc="outside lower center", ncols=min(5, len(metrics.models)))
    axes.set_xscale("log")
    axes.set_xlim(min(costs) / 1.7, max(costs) * 1.7)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    wide = max(costs) > 100 * min(costs)
    axes.xaxis.set_minor_formatter(NullFormatter() if wide else FuncFormatter(_minor_count))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_xlabel("Multiplications per frame (audited, logarithmic)")
    axes.set_ylabel(f"{rate_title(metrics)}, 95% interval")
    title = "Error rate against multiplications"
    axes.set_title(f"{title}: lower left is better", loc="left", fontsize=11.5)
    alt = f"{title} per frame. {'; '.join(spoken)}."
    return Plot("error_against_multiplications", title, alt, _png(figure))


def _pareto_front(metrics: EvaluationMetrics) -> Plot:
    """Every setting of a sweep, and the front of those that none beats."""
    points = pareto_points(metrics)
    front = [point for point in points if point.is_on_front]
    figure, axes = _figure(8.4, 4.4 + 0.24 * ((len(points) + 1) // 2))
    axes.step(
        [max(1.0, point.multiplications) for point in front],
        [point.error for point in front],
        where="post",
        color="#555555",
        linewidth=1.2,
        zorder=1,
    )
    for number, point in enumerate(points, start=1):
        kind = point.setting.model
        cost = max(1.0, point.multiplications)
        axes.plot(
            cost,
            point.error,
            marker=MODEL_MARKERS[kind],
            color=MODEL_COLOURS[kind],
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
    axes.xaxis.set_minor_formatter(FuncFormatter(_minor_count))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_xlabel("Multiplications per frame (audited, logarithmic)")
    axes.set_ylabel(rate_title(metrics))
    title = "What accuracy costs"
    figure.suptitle(
        f"{title}: filled points are beaten by no other", x=0.01, ha="left", fontsize=11.5
    )
    spoken = "; ".join(
        f"{p.setting.setting} {p.error:.1%} at {short_count(p.multiplications)}" for p in front
    )
    alt = f"{title}. Beaten by no other, from the cheapest: {spoken}."
    return Plot("pareto_front", title, alt, _png(figure))


def _minor_count(value: float, _: object) -> str:
    leading = float(f"{value:.0e}".split("e")[0])
    return short_count(value) if leading in (2.0, 5.0) else ""


def _term_group(term: str) -> str:
    return term.rsplit("_", 1)[0] if term[-1].isdigit() else term


def _cost_by_term(metrics: EvaluationMetrics) -> Plot:
    figure, axes = _figure(height=1.7 + 0.55 * len(metrics.models))
    labels = [model.label for model in metrics.models]
    left = [0.0] * len(labels)
    spoken: list[list[str]] = [[] for _ in labels]
    for group, (colour, hatch) in _TERM_COLOURS.items():
        widths = [
            sum(v for t, v in m.multiplications_per_frame.terms.items() if _term_group(t) == group)
            for m in metrics.models
        ]
        name = group.replace("_", "-")
        axes.barh(
            labels,
            widths,
            left=left,
            height=0.62,
            color=colour,
            hatch=hatch,
            edgecolor="white",
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
    title = "Where the multiplications go"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11.5)
    figure.legend(loc="outside lower center", ncols=4)
    alt = f"{title}, per frame. " + "; ".join(
        f"{label}: {', '.join(words)}" for label, words in zip(labels, spoken, strict=True)
    )
    return Plot("multiplications_by_term", title, alt + ".", _png(figure))


def site_names(num_layers: int) -> list[str]:
    """Encoder and layers, for people."""
    return ["encoder", *(f"layer {number + 1}" for number in range(num_layers))]


def _density_by_site(metrics: EvaluationMetrics) -> Plot:
    spiking = [model for model in metrics.models if model.spike_density]
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
            color=MODEL_COLOURS[model.model],
            hatch=("", "//", "..", "xx")[number % 4],
            edgecolor="white",
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
    title = "Spike density"
    axes.set_title(f"{title}: share of neurons that fire in a frame", loc="left", fontsize=11.5)
    if len(spiking) > 1:
        figure.legend(loc="outside lower center", ncols=min(4, len(spiking)))
    alt = f"{title} of {', '.join(sites)}. {'; '.join(spoken)}."
    return Plot("spike_density", title, alt, _png(figure))


def _learning_curves(metrics: EvaluationMetrics, trainings: Mapping[str, TrainManifest]) -> Plot:
    figure, axes = _figure()
    spoken = []
    for model in metrics.models:
        history = trainings[model.label].metrics
        same_kind = [m.label for m in metrics.models if m.model == model.model]
        axes.plot(
            [epoch.epoch + 1 for epoch in history],
            [epoch.dev_error for epoch in history],
            color=MODEL_COLOURS[model.model],
            linestyle=_LINE_STYLES[same_kind.index(model.label) % len(_LINE_STYLES)],
            marker=MODEL_MARKERS[model.model],
            markersize=4.5,
            linewidth=1.8,
            label=model.label,
        )
        if history:
            first, last = history[0].dev_error, history[-1].dev_error
            spoken.append(f"{model.label} from {first:.1%} to {last:.1%}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("Epoch")
    axes.set_ylabel(_dev_error_name(metrics, trainings))
    title = "Learning curves"
    axes.set_title(f"{title}: error on the dev split after each epoch", loc="left", fontsize=11.5)
    figure.legend(loc="outside lower center", ncols=min(5, len(metrics.models)))
    alt = f"{title}: dev error by epoch. {'; '.join(spoken)}."
    return Plot("learning_curves", title, alt, _png(figure))


def _dev_error_name(metrics: EvaluationMetrics, trainings: Mapping[str, TrainManifest]) -> str:
    objectives: Sequence[str] = sorted(
        {trainings[model.label].config.objective for model in metrics.models}
    )
    names = {"ctc": "label error rate", "frame": "frame error rate"}
    return "Dev " + " or ".join(names[objective] for objective in objectives)
