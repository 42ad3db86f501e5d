"""The front as a page: what was found, every point, who leads by how much, and what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from evaluation.comparison import escape_markdown, markdown_table
from evaluation.figures import short_count
from evaluation.front import (
    COST_TOLERANCE,
    FrontPoint,
    RateIntervals,
    best_dense_within,
    cheapest_dense_as_good,
    check_same_utterances,
    interval,
    rivals_of,
)
from evaluation.pareto import undominated
from evaluation.scoring import RATE_UNITS, Estimate, RateName


@dataclass(frozen=True)
class Missing:
    """An entry that is not there yet, in whole or in part."""

    name: str  # of the entry
    seeds: tuple[int, ...]  # seeds that are not trained and scored


def front_rates(points: Sequence[FrontPoint]) -> tuple[RateName, ...]:
    """The error rates by which all points were scored, that of the labels first."""
    return tuple(rate for rate in RATE_UNITS if all(point.has(rate) for point in points))


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.2f}% ({100 * estimate.low:.2f} to {100 * estimate.high:.2f})"


def _points(estimate: Estimate) -> str:
    """A difference in points of percent, with its interval."""
    return f"{100 * estimate.value:+.2f} ({100 * estimate.low:+.2f} to {100 * estimate.high:+.2f})"


def _point_row(point: FrontPoint, rates: Sequence[RateName]) -> dict[str, str]:
    first = point.runs[0]
    metrics = first.metrics
    density = " / ".join(f"{100 * share:.1f}%" for share in metrics.spike_density)
    row = {
        "Entry": point.name,
        "Mult./s": short_count(point.multiplications_per_s),
        "Size": f"{metrics.num_layers} x {metrics.hidden_size}",
        "Parameters": f"{metrics.parameters.total:,}",
        "Seeds": str(len(point.runs)),
    }
    for rate in rates:
        found = interval(point, rate)
        deviation = point.deviation(rate)
        spread = "" if deviation is None else f" ± {100 * deviation:.2f}"
        row[rate.upper()] = _percent(found.by_utterance) + spread
        if rate == rates[0]:
            by_speaker = found.by_speaker
            row["by speaker"] = f"{100 * by_speaker.low:.2f} to {100 * by_speaker.high:.2f}"
    return row | {
        "Density": density or "dense",
        "Look-ahead": f"{1000 * first.look_ahead_s:.0f} ms",
    }


def _workload_row(point: FrontPoint) -> dict[str, str] | None:
    """NeuroBench's measures and what is fetched, of the first seed."""
    found = point.runs[0].metrics.workload
    if found is None:
        return None
    return {
        "Entry": point.name,
        "Footprint": f"{found.footprint_bytes / 1e6:.2f} MB",
        "Activation sparsity": f"{100 * found.activation_sparsity:.1f}%",
        "Connection sparsity": f"{100 * found.connection_sparsity:.1f}%",
        "Effective MACs/frame": short_count(found.effective_macs),
        "Effective ACs/frame": short_count(found.effective_acs),
        "Dense operations/frame": short_count(found.dense_operations),
        "Frames/s": f"{found.execution_rate_hz:.0f}",
        "Weights fetched/s": f"{found.weight_bytes_per_s / 1e6:.1f} MB",
        "Additions/s": short_count(found.additions_per_s),
    }


def _verdict(found: RateIntervals, dense: FrontPoint) -> str:
    estimate = found.by_utterance
    if estimate.high < 0:
        return f"below {dense.name}"
    if estimate.low > 0:
        return f"above {dense.name}"
    return "undecided"


def _lead_row(point: FrontPoint, points: Sequence[FrontPoint], rate: RateName) -> dict[str, str]:
    """A point beside the best dense model of its cost, and the cheapest dense one of its error."""
    row = {
        "Entry": point.name,
        "Mult./s": short_count(point.multiplications_per_s),
        rate.upper(): f"{100 * point.rate(rate):.2f}%",
    }
    rivals = rivals_of(point, points)
    dense = best_dense_within(rivals, point.multiplications_per_s, rate)
    if dense is None:
        row |= {"Best dense at this cost": "none is trained", "Difference, points": "-"}
        row |= {"by speaker": "-", "Verdict": "-"}
    else:
        found = interval(point, rate, dense)
        row |= {
            "Best dense at this cost": f"{dense.name}, {100 * dense.rate(rate):.2f}%",
            "Difference, points": _points(found.by_utterance),
            "by speaker": _points(found.by_speaker),
            "Verdict": _verdict(found, dense),
        }
    equal = cheapest_dense_as_good(rivals, point.rate(rate), rate)
    if equal is None:
        row["Cheapest dense as good"] = "none that is trained"
    else:
        ratio = equal.multiplications_per_s / max(1.0, point.multiplications_per_s)
        row["Cheapest dense as good"] = (
            f"{equal.name}, {short_count(equal.multiplications_per_s)}: {ratio:.2f}x"
        )
    return row


def _variant_row(
    point: FrontPoint, points: Sequence[FrontPoint], rate: RateName
) -> dict[str, str] | None:
    """A variant beside the entry of which a part is left out or rounded, by the seeds of both."""
    original = next((other for other in points if other.name == point.variant_of), None)
    if original is None:
        return None
    shared = {run.seed for run in point.runs} & {run.seed for run in original.runs}
    if not shared:
        return {
            "Entry": point.name,
            "Seeds": "0",
            "Mult./s": short_count(point.multiplications_per_s),
            rate.upper(): f"{100 * point.rate(rate):.2f}%",
            "Beside": f"{original.name}, of other seeds alone",
            **dict.fromkeys(("Difference, points", "by speaker", "Verdict"), "-"),
        }
    ours, theirs = (
        replace(one, runs=tuple(run for run in one.runs if run.seed in shared))
        for one in (point, original)
    )
    found = interval(ours, rate, theirs)
    return {
        "Entry": point.name,
        "Seeds": str(len(shared)),
        "Mult./s": short_count(ours.multiplications_per_s),
        rate.upper(): f"{100 * ours.rate(rate):.2f}%",
        "Beside": f"{original.name}, {100 * theirs.rate(rate):.2f}%",
        "Difference, points": _points(found.by_utterance),
        "by speaker": _points(found.by_speaker),
        "Verdict": _verdict(found, original),
    }


def _sentences(points: Sequence[FrontPoint], rate: RateName) -> list[str]:
    front = undominated([p for p in points if p.variant_of is None], lambda p: p.place(rate))
    chain = "; ".join(
        f"{p.name} ({short_count(p.multiplications_per_s)}/s, {100 * p.rate(rate):.1f}%)"
        for p in front
    )
    first = points[0].runs[0]
    lines = [
        f"- {sum(len(p.runs) for p in points)} recognisers on {len(first.utterances)} utterances "
        f"of {len(set(first.speakers))} speakers.",
        f"- Beaten by no other in cost and {rate.upper()} at once: {chain}.",
    ]
    totals = {int(p.runs[0].lengths[rate].sum()) for p in points}
    if len(totals) > 1:
        lines.append(
            f"- References have {min(totals):,} to {max(totals):,} symbols: the alignment of each "
            "feature set says by itself which pronunciation of a word was spoken."
        )
    several = [p.name for p in points if len(p.runs) > 1]
    if len(several) < len(points):
        named = f"; several have {', '.join(several)}" if several else ""
        lines.append(f"- Of an entry with one seed nothing is claimed{named}.")
    return lines


def _comparisons(
    points: Sequence[FrontPoint], ordered: Sequence[FrontPoint], rate: RateName
) -> list[str]:
    """What is sparse beside what is dense, and variants beside their originals."""
    lines: list[str] = []
    sparse = [p for p in ordered if not p.is_dense and p.variant_of is None]
    if sparse:
        lines += [
            "",
            "## At equal cost, and at equal error",
            "",
            f"The best dense model may cost {100 * COST_TOLERANCE:.0f}% more. Differences are "
            "paired; 95% intervals over utterances, then over speakers. What learnt from no "
            "teacher, was not trained longer and has all its weights, in 32 bits, is held against "
            "dense models of which that is true; what is taught, trained longer or pruned, "
            "against those and its own kind. Nothing is held against what learnt from more speech.",
            "",
            *markdown_table([_lead_row(point, points, rate) for point in sparse]),
        ]
    variants = [row for point in ordered if (row := _variant_row(point, points, rate)) is not None]
    if variants:
        lines += [
            "",
            "## Parts left out, and weights rounded",
            "",
            "At the same budget, beside the entry that has all, of the same seeds; what is left "
            "out is in flows/front_entries.py.",
            "",
            *markdown_table(variants),
        ]
    return lines


def front_markdown(
    points: Sequence[FrontPoint], missing: Sequence[Missing], plots: Sequence[str]
) -> str:
    """The front in tables and sentences.

    Args:
        points: what is there, at least one.
        missing: what is not.
        plots: names of image files beside the page.
    """
    check_same_utterances(points)
    rates = front_rates(points)
    rate = rates[0]
    ordered = sorted(points, key=lambda p: (p.family, p.multiplications_per_s))
    lines = ["## What was found", "", *_sentences(points, rate), ""]
    lines += [f"![{name}]({name})" for name in plots]
    if missing:
        count = sum(len(entry.seeds) for entry in missing)
        lines += [
            "",
            f"**This front is partial:** {count} trainings of {len(missing)} entries are missing "
            "(listed below).",
        ]
    lines += [
        "",
        "## Every entry",
        "",
        *markdown_table([_point_row(point, rates) for point in ordered]),
    ]
    workloads = [row for point in ordered if (row := _workload_row(point)) is not None]
    if workloads:
        lines += ["", "## NeuroBench's measures, and what is fetched (first seed)", ""]
        lines += markdown_table(workloads)
    lines += _comparisons(points, ordered, rate)
    lines += ["", "## What was tuned, and how often", ""]
    tuned: dict[str, list[str]] = {}
    for point in ordered:
        tuned.setdefault(f"{point.family}: {point.tuned}", []).append(point.name)
    lines += [f"- {escape_markdown(text)} ({len(names)} entries)" for text, names in tuned.items()]
    if missing:
        lines += ["", "## Missing", ""]
        for seeds in dict.fromkeys(entry.seeds for entry in missing):
            names = ", ".join(entry.name for entry in missing if entry.seeds == seeds)
            number = "Seeds" if len(seeds) > 1 else "Seed"
            lines.append(f"- {number} {', '.join(map(str, seeds))} of: {names}.")
    return "\n".join(lines) + "\n"
