"""The front as a table for other programs: a row of each trained recogniser."""

import csv
import io
from collections.abc import Iterator, Sequence

from evaluation.front import FrontPoint


def front_csv(points: Sequence[FrontPoint]) -> str:
    """Every recogniser with its seed, cost and errors, as comma-separated values.

    Args:
        points: at least one. Rates are shares of the reference symbols, not percent; costs are
            audited multiplications of a second of speech.
    """
    rows = [row for point in points for row in _rows(point)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _rows(point: FrontPoint) -> Iterator[dict[str, object]]:
    for run in point.runs:
        metrics = run.metrics
        rates: dict[str, float] = {
            rate: round(float(errors.sum() / run.lengths[rate].sum()), 6)
            for rate, errors in run.errors.items()
        }
        yield {
            "entry": point.name,
            "family": point.family,
            "budget_m": point.budget_m,
            "seed": run.seed,
            "num_layers": metrics.num_layers,
            "hidden_size": metrics.hidden_size,
            "num_parameters": metrics.parameters.total,
            "multiplications_per_s": round(run.multiplications_per_s),
            **rates,
            "densities": " ".join(f"{share:.4f}" for share in metrics.spike_density),
            "look_ahead_s": round(run.look_ahead_s, 6),
            "training_fingerprint": metrics.training_fingerprint,
        }
