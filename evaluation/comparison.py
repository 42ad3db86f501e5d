"""The comparison as a table and as markdown, for terminals and Prefect artifacts."""

from collections.abc import Sequence

from evaluation.claims import paper_claims, summary_lines
from evaluation.metrics import ErrorRate, EvaluationMetrics, ModelMetrics, SettingMetrics, Spread
from evaluation.pareto import is_sweep, pareto_points
from evaluation.scoring import RATE_UNITS, RateName

_SPARED = ("Parameters", "Recurrent part", "Add./frame", "LSTM/model")
"""Columns of the comparison that a narrow page does without."""
_MARKDOWN_SPECIAL = "\\`*_{}[]<>#|~!&"


def format_rate(rate: ErrorRate) -> str:
    """An error rate with its interval, in percent."""
    return f"{100 * rate.value:.2f}% ({100 * rate.low:.2f} to {100 * rate.high:.2f})"


def format_factor(ratio: float | None) -> str:
    """A saving; a model without multiplications has none to divide by."""
    return "no mult." if ratio is None else f"{ratio:.2f}x"


def rate_columns(metrics: EvaluationMetrics) -> dict[str, RateName]:
    """Heading to name of the error rates that some model has."""
    return {
        name.upper(): name
        for name in RATE_UNITS
        if any(name in model.error_rates.known() for model in metrics.models)
    }


def _row(model: ModelMetrics, metrics: EvaluationMetrics) -> dict[str, str]:
    row = {"Model": model.label}
    known = model.error_rates.known()
    for title, name in rate_columns(metrics).items():
        row[title] = format_rate(known[name]) if name in known else ""
    counts = model.multiplications_per_frame
    density = " / ".join(f"{100 * value:.1f}%" for value in model.spike_density)
    return row | {
        "Parameters": f"{model.parameters.total:,}",
        "Recurrent part": f"{model.parameters.recurrent_layers:,}",
        "Spike density": density or "dense",
        "Mult./s (audited)": "-"
        if model.workload is None
        else f"{model.workload.multiplications_per_s:,.0f}",
        "Mult./frame (audited)": f"{counts.audited:,.0f}",
        "Mult./frame (as published)": f"{counts.as_published:,.0f}",
        "Add./frame": f"{model.additions_per_frame:,.0f}",
        "GRU/model": format_factor(model.saving.gru),
        "LSTM/model": format_factor(model.saving.lstm),
    }


def comparison_table(metrics: EvaluationMetrics) -> list[dict[str, str]]:
    """One row per model, ready to print; every row has the same keys in the same order."""
    return [_row(model, metrics) for model in metrics.models]


def format_spread(value: Spread | None, scale: float = 1.0, digits: int = 2, unit: str = "") -> str:
    """Mean and standard deviation over seeds; the mean alone of one seed."""
    if value is None:
        return "-"
    mean = f"{scale * value.mean:,.{digits}f}{unit}"
    if value.deviation is None:
        return mean
    return f"{mean} ± {scale * value.deviation:,.{digits}f}"


def pareto_table(metrics: EvaluationMetrics) -> list[dict[str, str]]:
    """The settings of a sweep from the cheapest, and which of them no other beats.

    Empty where every kind of model has one setting, so that there is nothing to choose.
    """
    if not is_sweep(metrics):
        return []
    title = metrics.primary_rate.upper()
    return [
        {
            "Setting": point.setting.setting,
            "Mult./frame (audited)": f"{point.multiplications:,.0f}",
            "GRU/model": format_spread(point.setting.saving_gru, unit="x"),
            title: f"{100 * point.error:.2f}%",
            "Spike density": " / ".join(f"{100 * d.mean:.1f}%" for d in point.setting.spike_density)
            or "dense",
            "Beaten by no other": "yes" if point.is_on_front else "",
        }
        for point in pareto_points(metrics)
    ]


def settings_table(metrics: EvaluationMetrics) -> list[dict[str, str]]:
    """One row per setting: mean and standard deviation over its seeds.

    Empty where every setting has one seed, of which ``comparison_table`` says all.
    """
    if all(len(setting.seeds) == 1 for setting in metrics.settings):
        return []
    return [_setting_row(setting, metrics) for setting in metrics.settings]


def _setting_row(setting: SettingMetrics, metrics: EvaluationMetrics) -> dict[str, str]:
    rates = {
        name.upper(): format_spread(getattr(setting, name), 100, unit="%")
        for name in RATE_UNITS
        if any(getattr(other, name) is not None for other in metrics.settings)
    }
    density = " / ".join(format_spread(site, 100, 1, "%") for site in setting.spike_density)
    return {
        "Model": setting.setting,
        "Seeds": str(len(setting.seeds)),
        **rates,
        "Parameters": f"{setting.parameters.total:,}",
        "Recurrent part": f"{setting.parameters.recurrent_layers:,}",
        "Spike density": density or "dense",
        "Mult./s (audited)": format_spread(setting.multiplications_per_s, digits=0),
        "Mult./frame (audited)": format_spread(setting.audited, digits=0),
        "Mult./frame (as published)": format_spread(setting.as_published, digits=0),
        "GRU/model": "no mult."
        if setting.saving_gru is None
        else format_spread(setting.saving_gru, unit="x"),
        "LSTM/model": "no mult."
        if setting.saving_lstm is None
        else format_spread(setting.saving_lstm, unit="x"),
    }


def workload_table(metrics: EvaluationMetrics) -> list[dict[str, str]]:
    """What a second of speech costs each model, in the field's measures."""
    return [
        {
            "Model": model.label,
            "Mult./s": f"{work.multiplications_per_s:,.0f}",
            "Weights read": f"{work.weight_bytes_per_s / 1e6:,.1f} MB/s",
            "Footprint": f"{work.footprint_bytes / 1e6:,.2f} MB",
            "Activation sparsity": f"{work.activation_sparsity:.1%}",
            "Connection sparsity": f"{work.connection_sparsity:.1%}",
            "Effective MACs": f"{work.effective_macs:,.0f}",
            "Effective ACs": f"{work.effective_acs:,.0f}",
            "Dense operations": f"{work.dense_operations:,.0f}",
            "Execution rate": f"{work.execution_rate_hz:.4g} Hz",
            "Look-ahead": f"{work.look_ahead_ms:.0f} ms",
        }
        for model in metrics.models
        if (work := model.workload) is not None
    ]


def escape_markdown(text: str) -> str:
    """Text that markdown (and the HTML in it) leaves as it is, on one line."""
    single = " ".join(text.split())
    return "".join(f"\\{char}" if char in _MARKDOWN_SPECIAL else char for char in single)


def markdown_table(rows: Sequence[dict[str, str]]) -> list[str]:
    """The lines of a table of rows with the same columns."""
    header = list(rows[0])
    lines = [f"| {' | '.join(header)} |", f"|{'|'.join([' --- '] * len(header))}|"]
    lines += [f"| {' | '.join(escape_markdown(v) for v in row.values())} |" for row in rows]
    return lines


def _without(columns: Sequence[str], rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: v for name, v in row.items() if name not in columns} for row in rows]


def claims_table(metrics: EvaluationMetrics) -> list[dict[str, str]]:
    """One row per claim of the paper that this evaluation can answer.

    Verdicts are given on the paper's corpora alone: elsewhere a claim can neither hold nor fail.
    """
    rows = [
        {
            "Claim of the paper": claim.claim,
            "TIMIT": claim.timit or "-",
            "LibriSpeech 100 h": claim.librispeech or "-",
            "Here": claim.here,
            "Verdict here": claim.verdict,
        }
        for claim in paper_claims(metrics)
    ]
    return rows if metrics.paper_corpus is not None else _without(["Verdict here"], rows)


def summary_markdown(metrics: EvaluationMetrics, *, narrow: bool = False) -> str:
    """The result in sentences, the comparison and the paper's claims, as GitHub's markdown.

    Args:
        narrow: leave out what a page with little room has no place for: sizes, additions, the
            saving over an LSTM, what is known of each model besides.
    """
    lines = ["## Evaluation", ""]
    lines += [f"- {escape_markdown(line)}" for line in summary_lines(metrics)]
    choices = pareto_table(metrics)
    if choices:
        lines += ["", "### What accuracy costs", "", *markdown_table(choices)]
    settings = settings_table(metrics)
    if settings:
        shown = _without(_SPARED if narrow else (), settings)
        lines += ["", "### Mean ± standard deviation over seeds", "", *markdown_table(shown)]
    if choices or settings:
        lines += ["", "### Every run"]
    lines += ["", *markdown_table(_without(_SPARED if narrow else (), comparison_table(metrics)))]
    measures = workload_table(metrics)
    if measures and not narrow:
        lines += ["", "### A second of speech, in NeuroBench's measures", ""]
        lines += markdown_table(measures)
    claims = claims_table(metrics)
    if claims:
        lines += ["", "### Beside the paper", "", *markdown_table(claims)]
    return "\n".join(lines) + "\n"
