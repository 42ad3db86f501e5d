"""The benchmark as sentences for the terminal and as a page for ``evaluation/results/``."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from evaluation.engine.benchmark import EventDrivenBenchResult
from evaluation.engine.curve_plot import (
    crossover_lines,
    curve_plot,
    curve_rows,
    markdown_table,
)
from evaluation.engine.exactness import LARGEST_DIFFERENCE, Exactness
from evaluation.engine.garbage import FLAT_MIB, GarbageOutcome
from evaluation.record import processor

MEMORY_LIMIT, START_LIMIT_S, INT8_LIMIT = 1.5, 1.0, 0.003


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "not met"


def result_lines(result: EventDrivenBenchResult) -> list[str]:
    """What came out, one sentence each."""
    lines = []
    for ratio in result.ratios:
        asked = ""
        if ratio.required is not None:
            asked = f" (asked: {ratio.required:g}, {_verdict(ratio.ratio >= ratio.required)})"
        lines.append(
            f"{ratio.ours} engine: {ratio.ratio:.1f} times faster than {ratio.peer}{asked}; "
            f"it executes {ratio.counted:.1f} times fewer multiplications"
        )
    if result.curve is not None:
        lines += crossover_lines(result.curve)
    lines += _footprint_lines(result)
    if len(result.error_rates) == 2:
        exact, rounded = (100 * rate.error_rate for rate in result.error_rates)
        met = _verdict(rounded - exact <= 100 * INT8_LIMIT)
        lines.append(
            f"error rate on {result.error_rates[0].num_utterances} utterances: float32 "
            f"{exact:.2f}%, int8 {rounded:.2f}% ({rounded - exact:+.2f} points; asked: at most "
            f"{100 * INT8_LIMIT:g}, {met})"
        )
    if result.garbage:
        lines.append(_garbage_line(result.garbage))
    lines += [_exactness_line(exactness) for exactness in result.exactness]
    return [*lines, *(f"not measured: {what}: {why}" for what, why in result.skipped.items())]


def _garbage_line(garbage: Sequence[GarbageOutcome]) -> str:
    added = max(outcome.added_mib for outcome in garbage)
    return (
        f"garbage of {len(garbage)} kinds, up to {garbage[-1].fed_in}: an answer or a clear error "
        f"to each; peak memory rose by at most {added:.1f} MiB (asked: flat, "
        f"{_verdict(added <= FLAT_MIB)})"
    )


def garbage_rows(garbage: Sequence[GarbageOutcome]) -> list[dict[str, str]]:
    """A row per input."""
    return [
        {
            "Fed in": outcome.fed_in,
            "Outcome": outcome.outcome,
            "Added to the peak memory, MiB": f"{outcome.added_mib:.1f}",
        }
        for outcome in garbage
    ]


def _exactness_line(found: Exactness) -> str:
    differing = sum((*found.differing_counts.values(), found.differing_records))
    line = (
        f"{found.model_name}, {_size_of(found)}, on all {found.num_utterances} utterances: "
        f"executed counts that are not audited or recorded {differing}, spikes that are not the "
        f"training-time model's {found.differing_outputs} of {found.num_spikes:,}, "
        f"log-probabilities within {found.largest_difference:.1e} of its own, results that depend "
        f"on the cutting {found.differing_cuttings} (asked: 0, 0, {LARGEST_DIFFERENCE:g} and 0, "
        f"{_verdict(found.is_exact)})"
    )
    onnx = found.onnx
    if onnx is None:
        return line
    return (
        f"{line}; in ONNX Runtime {onnx.differing_frames} of {onnx.num_frames:,} frames are more "
        f"than {LARGEST_DIFFERENCE:g} off, the largest difference is {onnx.largest_difference:.1e} "
        f"({_verdict(not onnx.differing_frames)})"
    )


def _size_of(found: Exactness) -> str:
    return f"{found.num_layers} x {found.hidden_size}"


def exactness_rows(exactness: Sequence[Exactness]) -> list[dict[str, str]]:
    """A row per model: what was compared, and how much of it differs."""
    return [
        {
            "Model": found.model_name,
            "Size": _size_of(found),
            "Training run": found.model.rstrip("/").rpartition("/")[2],
            "Utterances": f"{found.num_utterances:,}",
            "Frames": f"{found.num_frames:,}",
            "Spikes": f"{found.num_spikes:,}",
            "Multiplications": f"{found.multiplications:,}",
            "Outputs that differ": f"{found.differing_outputs:,}",
            "Largest difference of a log-probability": f"{found.largest_difference:.1e}",
            "Utterances: float32 counts differ": f"{found.differing_counts['float32']:,}",
            "int8 counts differ": f"{found.differing_counts['int8']:,}",
            "recorded counts differ": f"{found.differing_records:,} "
            f"({found.num_recorded:,} read from an evaluation)",
            "cutting matters": f"{found.differing_cuttings:,}",
            "ONNX Runtime: frames that differ": "not run"
            if found.onnx is None
            else f"{found.onnx.differing_frames:,} of {found.onnx.num_frames:,}",
            "largest difference": ""
            if found.onnx is None
            else f"{found.onnx.largest_difference:.1e}",
            "us a frame": "" if found.onnx is None else f"{found.onnx.frame_us:,.0f}",
        }
        for found in exactness
    ]


def _footprint_lines(result: EventDrivenBenchResult) -> list[str]:
    lines = []
    for foot in result.footprints:
        ratio = foot.added_mib / foot.weights_mib
        first = (
            f"; the very first start, which compiles, {foot.first_start_s:.1f} s"
            if foot.first_start_s is not None
            else ""
        )
        lines.append(
            f"{foot.precision}: from starting the interpreter to the first frame's scores "
            f"{foot.start_s:.2f} s (asked: under {START_LIMIT_S:g}, "
            f"{_verdict(foot.start_s < START_LIMIT_S)}){first}"
        )
        lines.append(
            f"{foot.precision}: the engine adds {foot.added_mib:.1f} MiB to the peak memory, "
            f"{ratio:.2f} times its {foot.weights_mib:.1f} MiB of weights (asked: under "
            f"{MEMORY_LIMIT:g}, {_verdict(ratio < MEMORY_LIMIT)}); the whole process, Python, "
            f"numpy and numba included, peaks at {foot.process_mib:.0f} MiB"
        )
    return lines


def record_page(result: EventDrivenBenchResult, command: Sequence[str], picture: str) -> str:
    """The page, as markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    features, hidden, layers, outputs = result.size
    density = " / ".join(f"{100 * share:.1f}%" for share in result.density)
    lines = [
        "# Event-driven engine beside dense networks",
        "",
        "```",
        shlex.join(command),
        "```",
        "",
        f"- measured {result.measured_at}",
        f"- {processor()}; one process, one thread, one frame at a time; {versions}",
        f"- {result.model_name}, {layers} layers of {hidden}, {features} features a frame of "
        f"{1000 * result.frame_shift_s:.0f} ms, {outputs} outputs; spike density (encoder / "
        f"layers) on frames of test speech {density}",
    ]
    if outputs != result.trained_outputs:
        lines.append(
            f"- trained with {result.trained_outputs} outputs; for the timing the output layer has "
            f"{outputs} rows, the others random (error rates are of the trained layer)"
        )
    lines += ["", "## Time per frame", ""]
    lines += markdown_table(
        [
            {
                "Contestant": step.name,
                "us per frame": f"{step.frame_us:,.1f}",
                "fastest round": f"{step.fastest_us:,.1f}",
                "mult./frame": f"{step.multiplications:,.0f}",
            }
            for step in result.steps
        ]
    )
    lines += ["", "## What it says", "", *(f"- {line}" for line in result_lines(result))]
    if result.curve is not None:
        lines += ["", "## Time against density", "", f"![time against density]({picture})", ""]
        lines += markdown_table(curve_rows(result.curve))
    if result.garbage:
        lines += ["", "## Garbage", ""]
        lines += markdown_table(garbage_rows(result.garbage))
    if result.exactness:
        lines += ["", "## Every utterance", ""]
        lines += _transposed(exactness_rows(result.exactness))
    return "\n".join(lines) + "\n"


def _transposed(rows: Sequence[dict[str, str]]) -> list[str]:
    """A table with a column per row, the first field as the heads."""
    head, *fields = rows[0]
    names = [row[head] for row in rows]
    columns = [f"{name} ({number})" for number, name in enumerate(names, start=1)]
    return markdown_table(
        [
            {head: field} | {column: row[field] for column, row in zip(columns, rows, strict=True)}
            for field in fields
        ]
    )


def write_record(result: EventDrivenBenchResult, page: Path, command: Sequence[str]) -> None:
    """Write the page and, beside it, its plot."""
    picture = page.with_name(page.stem + "-density.png")
    page.parent.mkdir(parents=True, exist_ok=True)
    if result.curve is not None:
        picture.write_bytes(curve_plot(result.curve).png)
    words = ["spikeline", *command[1:]]
    page.write_text(record_page(result, words, picture.name), encoding="utf-8")
