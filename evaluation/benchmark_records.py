"""Benchmarks of training as pages for ``evaluation/results/``."""

import shlex
from collections.abc import Mapping, Sequence

from evaluation.engine.curve_plot import markdown_table
from evaluation.record import processor
from featurize.stage import timestamp
from training.epoch_benchmark import EpochBenchmark
from training.recurrence_benchmark import BenchmarkRow, RecurrenceBenchmark


def page_head(
    title: str, command: Sequence[str], when: str, versions: Mapping[str, str]
) -> list[str]:
    """Title, command, time, machine and software of a record."""
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    return [
        f"# {title}",
        "",
        "```",
        shlex.join(["spikeline", *command[1:]]),
        "```",
        "",
        f"- measured {when}",
        f"- {processor()}; {software}",
    ]


def _verdict(row: BenchmarkRow) -> str:
    if row.required_ratio is None:
        return ""
    return f"{row.required_ratio:g}: {'met' if row.is_met else 'not met'}"


def recurrence_page(result: RecurrenceBenchmark, command: Sequence[str]) -> str:
    """The recurrence benchmark, as markdown."""
    config = result.config
    lines = page_head(
        "Recurrences beside dense and spiking peers", command, timestamp(), result.versions
    )
    lines += [
        f"- one process, {config.num_threads} threads for all; forward, backward and parameter "
        f"gradients; F={config.num_features}, {config.num_layers} layers, H={config.hidden_size}, "
        f"O={config.num_outputs}; contestants take turns, {config.num_steps} rounds after "
        f"{config.num_warmups} of warm-up; a ratio is the median over rounds of peer / ours",
        "",
        "## Time of a step",
        "",
    ]
    lines += markdown_table(
        [
            {
                "Case": f"{row.case}, B={row.batch_size}, T={row.num_frames}",
                "Model": row.model,
                "Spikes": " / ".join(f"{share:.0%}" for share in row.spike_densities) or "-",
                "Peer": row.peer,
                "Ours, ms": f"{1000 * row.our_time_s:,.0f}",
                "Peer, ms": f"{1000 * row.peer_time_s:,.0f}",
                "Ratio": f"{row.ratio:.2f}",
                "Asked": _verdict(row),
            }
            for row in result.rows
        ]
    )
    if result.scaling:
        lines += ["", "## Time against length, v2", ""]
        lines += markdown_table(
            [
                {
                    "Frames": f"{row.num_frames:,}",
                    "Step, s": f"{row.time_s:.2f}",
                    "us per frame": f"{row.time_per_frame_us:,.0f}",
                }
                for row in result.scaling
            ]
        )
    if result.memory:
        lines += ["", "## Peak memory of a step, MB", "", *_memory_table(result)]
    lines += ["", *(f"- not measured: {what}: {why}" for what, why in result.skipped.items())]
    return "\n".join(lines).rstrip() + "\n"


def _memory_table(result: RecurrenceBenchmark) -> list[str]:
    models = dict.fromkeys(row.model for row in result.memory)
    lengths = dict.fromkeys(row.num_frames for row in result.memory)
    peaks = {(row.model, row.num_frames): row.peak_mb for row in result.memory}
    return markdown_table(
        [
            {"Model": model}
            | {f"T={length:,}": f"{peaks[model, length]:,.0f}" for length in lengths}
            for model in models
        ]
    )


def epoch_page(result: EpochBenchmark, command: Sequence[str]) -> str:
    """The epoch benchmark, as markdown."""
    lines = page_head("An epoch of training", command, result.measured_at, result.versions)
    first = result.trainings[0]
    lines += [
        f"- {result.num_frames:,} frames an epoch, batches of {first.batch_size}, "
        f"{first.model.num_layers} layers of {first.model.hidden_size}, objective "
        f"{first.objective}; Ray Train, checkpoints and dev split included; the second epoch",
        "",
    ]
    lines += markdown_table(
        [
            {
                "Model": row.model,
                "Epoch, s": f"{row.epoch_s:.1f}",
                "Frames/s": f"{row.frames_per_s:,.0f}",
                "Start to end of two epochs, s": f"{row.whole_s:.1f}",
                "Spikes": " / ".join(f"{share:.0%}" for share in row.spike_density) or "-",
            }
            for row in result.times
        ]
    )
    lines += ["", "## Where a step's time goes", ""]
    lines += markdown_table(
        [
            {"Model": row.model} | {part: f"{share:.0%}" for part, share in row.parts.items()}
            for row in result.times
        ]
    )
    return "\n".join(lines) + "\n"
