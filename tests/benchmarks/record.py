"""``python -m tests.benchmarks.record``: a finished evaluation as a page of ``evaluation/results``.

Prints markdown: the command that made the result, when, on what, with which versions, how long each
training took, then the comparison and what it means, all from the evaluation's own files.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence

from evaluation.chosen import read_evaluation
from evaluation.comparison import summary_markdown
from evaluation.machine import processor
from featurize.stage import Location, PipelineError, read_manifest
from training.manifest import TrainManifest


def record_markdown(evaluation: Location, title: str, command: Sequence[str]) -> str:
    """The record of one evaluation."""
    manifest, metrics = read_evaluation(evaluation)
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    lines = [
        f"# {title}",
        "",
        "```",
        shlex.join(command),
        "```",
        "",
        f"- finished {manifest.created_at}",
        f"- {processor()}; {versions}",
        f"- evaluation `{manifest.fingerprint}`",
        "",
        summary_markdown(metrics),
        "",
        "## Training",
        "",
        "| model | epochs | best epoch | best dev error | minutes | frames/s, median epoch |",
        "|---|---|---|---|---|---|",
    ]
    for address, model in zip(manifest.models, metrics.models, strict=True):
        run = read_manifest(Location.of(address), TrainManifest)
        rates = sorted(metric.frames_per_s for metric in run.metrics)
        minutes = sum(metric.seconds for metric in run.metrics) / 60
        lines.append(
            f"| {model.label} | {run.num_epochs} | {run.best_epoch + 1} | "
            f"{100 * run.best_dev_error:.1f}% | {minutes:.1f} | {rates[len(rates) // 2]:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the record of the evaluation named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("evaluation", help="location of a finished evaluation")
    parser.add_argument("--title", required=True, help="heading of the file")
    parser.add_argument("--command", required=True, help="the command that made the result")
    options = parser.parse_args()
    try:
        text = record_markdown(
            Location.of(options.evaluation), options.title, shlex.split(options.command)
        )
    except PipelineError as error:
        sys.exit(f"record: {error}")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
