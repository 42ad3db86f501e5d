"""How training went, epoch by epoch."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from evaluation.figures import (
    Plot,
    colour_of,
    finish,
    legend_below,
    marker_of,
    new_figure,
    plot_style,
)
from training.manifest import EpochMetrics
from training.train_config import TrainConfig

_LINE_STYLES = ("-", "--", ":", "-.")
_ERROR_NAMES = {"ctc": "label error rate", "frame": "frame error rate"}


class Training(Protocol):
    """A training as far as it is: a manifest, or one that still runs."""

    @property
    def config(self) -> TrainConfig:
        """What is trained."""

    @property
    def metrics(self) -> tuple[EpochMetrics, ...]:
        """Its finished epochs."""


def error_name(config: TrainConfig) -> str:
    """What a training's dev error counts."""
    return _ERROR_NAMES[config.objective]


def draw_learning_curves(trainings: Mapping[str, Training]) -> Plot:
    """Dev error and training loss of one or more trainings over their epochs.

    Args:
        trainings: label of each to its epochs, in the order of the legend.
    """
    with plot_style():
        figure = new_figure(height=5.4)
        errors, losses = figure.subplots(2, 1, sharex=True, height_ratios=(4, 3))
        spoken = []
        kinds = [training.config.model.spec.name for training in trainings.values()]
        for number, (label, training) in enumerate(trainings.items()):
            nth_of_kind = kinds[:number].count(kinds[number])
            line = _LINE_STYLES[nth_of_kind % len(_LINE_STYLES)]
            _curve(errors, training, [e.dev_error for e in training.metrics], line, label)
            _curve(losses, training, [e.train_loss for e in training.metrics], line)
            if training.metrics:
                spoken.append(f"{label} {_spoken(training.metrics)}")
        errors.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        names = sorted({error_name(training.config) for training in trainings.values()})
        errors.set_title(f"Dev {' or '.join(names)}", loc="left", fontsize=11)
        losses.set_title("Training loss, nats", loc="left", fontsize=11)
        for axes in (errors, losses):
            axes.set_ylim(0, 1.06 * max(axes.dataLim.y1, 1e-3))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        losses.set_xlabel("Epoch")
        legend_below(figure, min(5, len(trainings)))
        title = "Learning curves: dev error and training loss by epoch"
        alt = f"{title}. {'; '.join(spoken)}."
        return finish(figure, "learning_curves", title, alt)


def _curve(
    axes: Axes, training: Training, values: Sequence[float], line: str, label: str = ""
) -> None:
    kind = training.config.model.spec.name
    axes.plot(
        [epoch.epoch + 1 for epoch in training.metrics],
        values,
        color=colour_of(kind),
        linestyle=line,
        marker=marker_of(kind),
        markersize=4.5,
        linewidth=1.8,
        label=label,
    )


def _spoken(history: Sequence[EpochMetrics]) -> str:
    first, last = history[0], history[-1]
    return (
        f"from {first.dev_error:.1%} to {last.dev_error:.1%}, "
        f"loss from {first.train_loss:.2f} to {last.train_loss:.2f}"
    )
