"""An evaluation's comparison, read back and laid out for a terminal."""

from rich import box
from rich.console import JustifyMethod
from rich.table import Table

from evaluation.chosen import read_evaluation
from evaluation.comparison import format_factor, format_spread
from evaluation.metrics import ErrorRate, EvaluationMetrics, ModelMetrics, SettingMetrics
from evaluation.scoring import RATE_UNITS
from featurize.stage import Location


def read_metrics(evaluation: Location) -> EvaluationMetrics:
    """Read an evaluation's ``metrics.json``."""
    return read_evaluation(evaluation)[1]


def _rates(model: ModelMetrics) -> dict[str, ErrorRate]:
    return {f"{RATE_UNITS[n]}\nerrors": rate for n, rate in model.error_rates.known().items()}


def _rate(rate: ErrorRate | None) -> str:
    if rate is None:
        return "-"
    return f"{rate.value:.1%}\n{100 * rate.low:.1f}-{100 * rate.high:.1f}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count / 1e3:.0f}k"


def _cells(model: ModelMetrics, rate_names: list[str]) -> dict[str, str]:
    rates = _rates(model)
    counts = model.multiplications_per_frame
    # A second error rate takes the place of the paper's way of counting, which the report has.
    published = {"as\npublished": f"{counts.as_published:,.0f}"} if len(rate_names) < 2 else {}
    return {
        "model": model.label,
        **{name: _rate(rates.get(name)) for name in rate_names},
        "mult.\nper frame": f"{counts.audited:,.0f}",
        **published,
        "saving\nvs GRU": format_factor(model.saving.gru),
        "spike\ndensity": " ".join(f"{d:.2f}" for d in model.spike_density) or "dense",
        "size": _size(model.parameters.total),
    }


def comparison_table(metrics: EvaluationMetrics) -> Table:
    """One row per model, narrow enough for 80 columns.

    Densities are of the encoder, then the layers; the saving is by audited counts; the size is the
    number of parameters.
    """
    names = list(dict.fromkeys(name for model in metrics.models for name in _rates(model)))
    return _laid_out([_cells(model, names) for model in metrics.models])


def seeds_table(metrics: EvaluationMetrics) -> Table | None:
    """Mean and standard deviation over seeds, one row per setting; None where each has one seed."""
    if all(len(setting.seeds) == 1 for setting in metrics.settings):
        return None
    return _laid_out(
        [
            {
                "mean ± deviation": f"{setting.setting} ({len(setting.seeds)})",
                **_setting_rates(setting),
                "mult.\nper frame": format_spread(setting.audited, digits=0),
                "saving\nvs GRU": format_spread(setting.saving_gru, unit="x"),
            }
            for setting in metrics.settings
        ]
    )


def _setting_rates(setting: SettingMetrics) -> dict[str, str]:
    rates = {f"{unit}\nerrors": getattr(setting, name) for name, unit in RATE_UNITS.items()}
    return {
        name: format_spread(rate, 100, 1, "%") for name, rate in rates.items() if rate is not None
    }


def _laid_out(rows: list[dict[str, str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for number, name in enumerate(rows[0]):
        # Where there is too little room, names are folded and figures stay whole.
        justify: JustifyMethod = "right" if number else "left"
        table.add_column(name, justify=justify, no_wrap=number > 0, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    return table
