"""One self-contained HTML page: what came out, what it means, where it comes from.

Nothing is fetched: plots are part of the page and the style sheet is inline. The page is the
template ``templates/report.html`` with the style ``templates/report.css`` (light and dark, readable
without colour, fit to print). It escapes every text that comes from data (ids, transcripts,
addresses), and the page allows no script at all.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

import kaldialign
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evaluation.claims import summary_lines, title_of
from evaluation.comparison import (
    claims_table,
    comparison_table,
    format_rate,
    pareto_table,
    rate_columns,
    settings_table,
)
from evaluation.figures import INK, LINE, PAPER, Plot, page_colours, short_count
from evaluation.headline import headline
from evaluation.learning_curves import error_name
from evaluation.metrics import EvaluationMetrics, ModelMetrics
from evaluation.outcome import ShownUtterance
from training.manifest import TrainManifest

_NOTHING = "\x00"
_MULTIPLICATIONS, _SAVING = "Multiplications", "Beside a GRU of its size"
_SPIKES, _VALUES = "Spikes", "Learned values"
_EXPLAINED = {
    "PER": "phones wrong, missing or added, of 100 spoken",
    "WER": "words wrong, missing or added, of 100 spoken",
    "CER": "characters wrong, missing or added, of 100",
    _MULTIPLICATIONS: "for a second of speech",
    _SAVING: "times fewer multiplications",
    _SPIKES: "share of neurons that fire in a frame, encoder / layers",
    _VALUES: "of the whole network",
}


def _in_lines(text: str) -> Markup:
    """A cell's text with an interval below its value."""
    return Markup(escape(text).replace(" (", "<br>("))  # noqa: S704 - escaped


def _drawing(plot: Plot) -> Markup:
    """A plot's SVG, made by us, with its words for who does not see it."""
    labelled = f'<svg role="img" aria-label="{escape(plot.alt)}" '
    return Markup(plot.svg.replace("<svg ", labelled, 1))  # noqa: S704


def environment() -> Environment:
    """The page's template and its style sheet."""
    made = Environment(
        loader=PackageLoader("evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    made.filters |= {"lines": _in_lines, "drawing": _drawing}
    made.globals |= {"ink": INK, "line": LINE, "paper": PAPER, "page_colours": page_colours}
    return made


def _comparison(metrics: EvaluationMetrics) -> list[dict[str, str]]:
    """One row per model, at most seven columns."""
    rows = []
    for model in metrics.models:
        row, known = {"Model": title_of(model)}, model.error_rates.known()
        for title, name in rate_columns(metrics).items():
            row[title] = format_rate(known[name]) if name in known else "-"
        density = " / ".join(f"{100 * value:.0f}%" for value in model.spike_density)
        saving = model.saving.gru
        row[_MULTIPLICATIONS] = short_count(model.audited_per_s)
        row[_SAVING] = "no multiplications" if saving is None else f"{saving:.1f}"
        row[_SPIKES] = density or "dense"
        row[_VALUES] = short_count(model.parameters.total)
        rows.append(row)
    return rows


def _terms(metrics: EvaluationMetrics) -> list[dict[str, str]]:
    terms: dict[str, None] = {}
    for model in metrics.models:
        terms |= dict.fromkeys(model.multiplications_per_frame.terms)
    matrix = [term for term in terms if term != "elementwise"]
    ordered = [*sorted(matrix, key=lambda term: (term == "output", term)), "elementwise"]
    rows = []
    for model in metrics.models:
        counts = model.multiplications_per_frame
        row = {"Model": model.label}
        for term in ordered:
            value = counts.terms.get(term)
            row[term.replace("_", " ")] = "-" if value is None else f"{value:,.0f}"
        rows.append(row | {"audited": f"{counts.audited:,.0f}"})
    return rows


def marked_difference(reference: Sequence[str], hypothesis: Sequence[str]) -> Markup:
    """The hypothesis as HTML, with what it lacks struck out and what it adds underlined."""
    parts = []
    for wanted, found in kaldialign.align(list(reference), list(hypothesis), _NOTHING):
        if wanted == found:
            parts.append(Markup("{}").format(found))
            continue
        if wanted != _NOTHING:
            parts.append(Markup("<del>{}</del>").format(wanted))
        if found != _NOTHING:
            parts.append(Markup("<ins>{}</ins>").format(found))
    return Markup(" ").join(parts)


def _by_utterance(
    examples: Mapping[str, Sequence[ShownUtterance]],
) -> dict[str, list[tuple[str, Markup]]]:
    found: dict[str, list[tuple[str, Markup]]] = {}
    for label, shown in examples.items():
        for example in shown:
            marked = marked_difference(example.reference, example.hypothesis)
            found.setdefault(example.utterance_id, []).append((label, marked))
    return found


def _training(
    metrics: EvaluationMetrics, trainings: Mapping[str, TrainManifest]
) -> list[dict[str, str]]:
    rows = []
    for model in metrics.models:
        training = trainings[model.label]
        rates = sorted(epoch.frames_per_s for epoch in training.metrics)
        rows.append(
            {
                "Model": model.label,
                "Layers x neurons": f"{model.num_layers} x {model.hidden_size}",
                "Epochs": str(training.num_epochs),
                "Best epoch": str(training.best_epoch + 1),
                "Best dev error": f"{training.best_dev_error:.1%}",
                "Minutes": f"{model.training_seconds / 60:.1f}",
                "Frames/s, median": f"{rates[len(rates) // 2]:,.0f}" if rates else "-",
                "Decoder": model.decoder,
            }
        )
    return rows


def _word_weights(model: ModelMetrics) -> str:
    if model.words is None:
        return ""
    chosen = "chosen on dev" if model.words.tune_on_dev else "as configured"
    return (
        f"; words with lm_weight {model.words.lm_weight:g}, word_score "
        f"{model.words.word_score:g}, {chosen}"
    )


def _settings(metrics: EvaluationMetrics) -> list[dict[str, Any]]:
    """What several seeds and several settings add; empty where there is one of each."""
    tables = (
        ("Over seeds", settings_table(metrics), "Mean and standard deviation over seeds"),
        ("Settings", pareto_table(metrics), "The settings from the cheapest"),
    )
    return [
        {"title": title, "rows": rows, "caption": caption}
        for title, rows, caption in tables
        if rows
    ]


def render_report(
    metrics: EvaluationMetrics,
    plots: Sequence[Plot],
    examples: Mapping[str, Sequence[ShownUtterance]],
    trainings: Mapping[str, TrainManifest],
    created_at: str,
) -> str:
    """Write the page.

    Args:
        plots: to embed, in order; the first stands beside the numbers.
        examples: per model label, the same utterances for each.
    """
    names = sorted({error_name(training.config) for training in trainings.values()})
    caption = f"Dev error: {' or '.join(names)}; the best epoch's weights are evaluated"
    return (
        environment()
        .get_template("report.html")
        .render(
            title=f"Speech recognisers compared on {', '.join(metrics.subsets)}",
            created_at=f"{datetime.fromisoformat(created_at):%-d %B %Y, %H:%M} UTC",
            metrics=metrics,
            headline=headline(metrics),
            summary=summary_lines(metrics),
            plots=plots,
            comparison=_comparison(metrics),
            explained=_EXPLAINED,
            settings=_settings(metrics),
            claims=claims_table(metrics),
            has_verdicts=metrics.paper_corpus is not None,
            examples=_by_utterance(examples),
            everything=comparison_table(metrics),
            terms=_terms(metrics),
            training=_training(metrics, trainings),
            training_caption=caption,
            sources=[(model.label, model.run, _word_weights(model)) for model in metrics.models],
        )
    )
