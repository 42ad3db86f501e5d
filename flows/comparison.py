"""The comparison table of an evaluation, as rows for the UI and as a table for a terminal."""

from pydantic import ValidationError
from rich.table import Table

from evaluation.metrics import ErrorRate, EvaluationMetrics, ModelMetrics
from featurize.errors import PipelineError
from featurize.locations import Location

METRICS_NAME = "metrics.json"


def read_metrics(evaluation: Location) -> EvaluationMetrics:
    """Read an evaluation's ``metrics.json``.

    Raises:
        PipelineError: when it is missing or of another version.
    """
    file = evaluation.child(METRICS_NAME)
    if not file.exists():
        raise PipelineError(f"{file} is missing; run the evaluation again")
    try:
        return EvaluationMetrics.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise PipelineError(
            f"{file} is not one this version reads; remove {evaluation} and evaluate again"
        ) from error


def _rates(model: ModelMetrics) -> dict[str, ErrorRate]:
    rates = model.error_rates
    named = {"phone errors": rates.per, "word errors": rates.wer, "character errors": rates.cer}
    return {name: rate for name, rate in named.items() if rate is not None}


def _rate(rate: ErrorRate) -> str:
    return f"{rate.value:.1%} ({rate.low:.1%} to {rate.high:.1%})"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _row(model: ModelMetrics) -> dict[str, str]:
    multiplications = model.multiplications_per_frame
    return {
        "model": model.label,
        **{name: _rate(rate) for name, rate in _rates(model).items()},
        "multiplications/frame": _count(multiplications.audited),
        "as published": _count(multiplications.as_published),
        "saving over GRU": _times(model.saving.gru),
        "spike density": " ".join(f"{d:.2f}" for d in model.spike_density) or "-",
        "parameters": _count(model.parameters.total),
    }


def comparison_rows(metrics: EvaluationMetrics) -> list[dict[str, str]]:
    """One row per model, every column in every row."""
    return [_row(model) for model in metrics.models]


def comparison_table(metrics: EvaluationMetrics) -> Table:
    """The same for a terminal."""
    rows = comparison_rows(metrics)
    first = metrics.models[0]
    table = Table(
        title=f"{first.num_utterances} utterances of {', '.join(metrics.subsets)}",
        caption="error rates with 95% intervals; saving by audited counts",
    )
    for name in rows[0]:
        table.add_column(name, justify="left" if name == "model" else "right")
    for row in rows:
        table.add_row(*row.values())
    return table
