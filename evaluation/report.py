"""One self-contained HTML page: what came out, what it means, where it comes from.

Nothing is fetched: plots are part of the page and the style sheet is inline. Every text that comes
from data (ids, transcripts, addresses) is escaped, and the page allows no script at all.
"""

from collections.abc import Mapping, Sequence
from html import escape

import kaldialign

from evaluation.claims import paper_claims, summary_lines
from evaluation.comparison import (
    claims_table,
    comparison_table,
    pareto_table,
    settings_table,
)
from evaluation.figures import Plot
from evaluation.learning_curves import error_name
from evaluation.metrics import EvaluationMetrics, ModelMetrics
from evaluation.outcome import Example
from evaluation.report_style import REPORT_CSS
from training.manifest import TrainManifest

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_NOTHING = "\x00"

_METHOD = """<h2>How it was counted</h2>
<p>Error rates are substitutions, insertions and deletions over reference symbols, summed over all
utterances; intervals are 95% percentile bootstraps over utterances, with the same draws for every
model. Character error rates count spaces.</p>
<p>Multiplications are per frame and padding never counts. A matrix term costs the non-zero inputs
times their fan-out; dense activations count whole. <em>Audited</em> is the sum of the matrix terms,
exact to the last integer; <em>as published</em> repeats the counting of the paper's own script, for
comparison with its tables. Single-bit spikes cost additions and no multiplications. Elementwise
products are itemised, and in no model part of the audited count. <em>GRU/model</em> and
<em>LSTM/model</em> divide the count of a dense model with the same features, layers, neurons and
outputs by the model's.</p>
"""


def _cell(text: str, column: int, kind: str = "") -> str:
    if column == 0:
        return f'<th scope="row">{escape(text)}</th>'
    attribute = f' class="{kind}"' if kind else ""
    # An interval goes below its value: tables are wide enough.
    return f"<td{attribute}>{escape(text).replace(' (', '<br>(')}</td>"


def _table(rows: Sequence[Mapping[str, str]], caption: str) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in rows[0])
    kinds = {"holds": "holds", "does not hold": "fails"}
    body = "".join(
        "<tr>"
        + "".join(_cell(text, n, kinds.get(text, "")) for n, text in enumerate(row.values()))
        + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>{body}</tbody></table></div>\n"
    )


def _terms_table(metrics: EvaluationMetrics) -> str:
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
    return _table(rows, "Multiplications per frame by term; audited leaves out elementwise")


def _figure(plot: Plot) -> str:
    wide = ' class="wide"' if plot.is_wide else ""
    image = plot.svg.replace("<svg ", f'<svg role="img" aria-label="{escape(plot.alt)}" ', 1)
    return (
        f"<figure{wide}>{image}<figcaption>{escape(plot.title)}"
        f"<details><summary>In words</summary><p>{escape(plot.alt)}</p></details>"
        "</figcaption></figure>\n"
    )


def marked_difference(reference: Sequence[str], hypothesis: Sequence[str]) -> str:
    """The hypothesis as HTML, with what it lacks struck out and what it adds underlined."""
    parts = []
    for wanted, found in kaldialign.align(list(reference), list(hypothesis), _NOTHING):
        if wanted == found:
            parts.append(escape(found))
            continue
        if wanted != _NOTHING:
            parts.append(f"<del>{escape(wanted)}</del>")
        if found != _NOTHING:
            parts.append(f"<ins>{escape(found)}</ins>")
    return " ".join(parts)


def _examples(examples: Mapping[str, Sequence[Example]]) -> str:
    rows = []
    by_utterance: dict[str, list[tuple[str, Example]]] = {}
    for label, shown in examples.items():
        for example in shown:
            by_utterance.setdefault(example.utterance_id, []).append((label, example))
    for utterance_id, shown_by in by_utterance.items():
        rowspan = len(shown_by)
        for number, (label, example) in enumerate(shown_by):
            name = (
                f'<th scope="rowgroup" rowspan="{rowspan}" class="id">{escape(utterance_id)}</th>'
                if number == 0
                else ""
            )
            marked = marked_difference(example.reference, example.hypothesis)
            rows.append(
                f'<tr>{name}<td class="text">{escape(label)}</td>'
                f'<td class="text transcript">{marked}</td></tr>\n'
            )
    return (
        '<h2>Examples</h2>\n<p>Chosen by position, not by result. <span class="transcript">'
        "<del>struck out</del></span>: in the reference and not recognised; "
        '<span class="transcript"><ins>underlined</ins></span>: recognised and not there.</p>\n'
        '<div class="scroll" tabindex="0" role="region" aria-label="Examples"><table><thead><tr>'
        '<th scope="col">Utterance</th><th scope="col" class="text">Model</th>'
        f'<th scope="col" class="text">Hypothesis</th></tr></thead><tbody>{"".join(rows)}</tbody>'
        "</table></div>\n"
    )


def _training(metrics: EvaluationMetrics, trainings: Mapping[str, TrainManifest]) -> str:
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
    names = sorted({error_name(training.config) for training in trainings.values()})
    caption = f"Dev error: {' or '.join(names)}; the best epoch's weights are evaluated"
    return "<h2>Training</h2>\n" + _table(rows, caption)


def _word_weights(model: ModelMetrics) -> str:
    if model.words is None:
        return ""
    chosen = "chosen on dev" if model.words.tune_on_dev else "as configured"
    return (
        f"; words with lm_weight {model.words.lm_weight:g}, word_score "
        f"{model.words.word_score:g}, {chosen}"
    )


def _sources(metrics: EvaluationMetrics) -> str:
    items = "".join(
        f"<li>{escape(model.label)}: <code>{escape(model.run)}</code>{_word_weights(model)}</li>\n"
        for model in metrics.models
    )
    return (
        f"<h2>Where it comes from</h2>\n<ul><li>Features: <code>{escape(metrics.features)}</code>, "
        f"subsets {escape(', '.join(metrics.subsets))}, labels {escape(metrics.label_kind)}</li>\n"
        f"{items}</ul>\n"
    )


def _settings(metrics: EvaluationMetrics) -> str:
    """What several seeds and several settings add; empty where there is one of each."""
    tables = (
        ("Over seeds", settings_table(metrics), "Mean and standard deviation over seeds"),
        ("Settings", pareto_table(metrics), "The settings from the cheapest"),
    )
    return "".join(
        f"<h2>{title}</h2>\n" + _table(rows, caption) for title, rows, caption in tables if rows
    )


def _claims(metrics: EvaluationMetrics) -> str:
    if not paper_claims(metrics):
        return ""
    return (
        "<h2>Beside the paper</h2>\n<p>Ponghiran and Roy, AAAI 2022, on TIMIT and LibriSpeech "
        "100 h with HMM decoding. Corpus, labels and training may differ here, so a claim that "
        "does not hold here is not thereby refuted there. <em>Undecided</em>: the interval "
        "allows both.</p>\n" + _table(claims_table(metrics), "The paper's claims and this result")
    )


def render_report(
    metrics: EvaluationMetrics,
    plots: Sequence[Plot],
    examples: Mapping[str, Sequence[Example]],
    trainings: Mapping[str, TrainManifest],
    created_at: str,
) -> str:
    """Write the page.

    Args:
        metrics: the evaluation.
        plots: to embed, in order.
        examples: per model label, the same utterances for each.
        trainings: training manifest of each model's label.
        created_at: when the evaluation was made.
    """
    title = f"Speech recognisers compared on {', '.join(metrics.subsets)}"
    summary = "".join(f"<li>{escape(line)}</li>\n" for line in summary_lines(metrics))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(title)}</title>\n<style>{REPORT_CSS}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(title)}</h1>\n<p class="meta">spikeline, {escape(created_at)}</p>\n'
        f'<section class="summary" aria-label="Summary"><ul>\n{summary}</ul></section>\n'
        "<h2>Comparison</h2>\n"
        + _table(comparison_table(metrics), "Error rates with 95% intervals, size and cost")
        + _settings(metrics)
        + _claims(metrics)
        + '<h2>Plots</h2>\n<div class="plots">\n'
        + "".join(_figure(plot) for plot in plots)
        + "</div>\n"
        + "<h2>Multiplications, itemised</h2>\n"
        + _terms_table(metrics)
        + _examples(examples)
        + _training(metrics, trainings)
        + _METHOD
        + _sources(metrics)
        + "</main>\n</body>\n</html>\n"
    )
