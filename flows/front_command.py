"""The command ``front``: train, score and draw accuracy against multiplications."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.machine import processor
from featurize.stage import Location, PipelineError, software_versions, timestamp
from flows.command import command, prefect_api
from flows.front_entries import front_recipe
from flows.options import FrontChoice
from flows.overrides import configured
from training.worker_config import WorkerConfig


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds separated by commas."""
    seeds = [part.strip() for part in text.split(",")]
    if not all(seed.isdecimal() for seed in seeds):
        raise PipelineError(
            f"--seeds {text}: write whole numbers from 0 with commas between them, such as 0,1"
        )
    return tuple(dict.fromkeys(int(seed) for seed in seeds))


def run_front(
    corpus: str,
    runs: str,
    chosen: FrontChoice,
    overrides: Sequence[str],
    record: str | None,
    *,
    found_only: bool,
    as_json: bool,
) -> None:
    """Train what is chosen, draw the front of all that is finished, show or record the page.

    Args:
        record: file that the page is written to; beside it lie its images and, for other programs,
            its recognisers as ``.csv``, named after it. None to print it.
    """
    if record is not None and not record.endswith(".md"):
        raise PipelineError(
            f"--record {record}: the page is Markdown; name a file that ends with .md"
        )
    recipe = configured(front_recipe(), overrides)
    selected = recipe.chosen(tuple(chosen.family or ()), tuple(chosen.budget or ()))
    if chosen.seeds is not None:
        selected = selected.with_seeds(parse_seeds(chosen.seeds))
        # Others than the recipe's are scored and shown, too.
        seeds = tuple(dict.fromkeys((*recipe.seeds, *selected.seeds)))
        recipe = recipe.model_copy(update={"seeds": seeds})
    name = "front" if record is None else Path(record).stem
    root = Location.of(corpus)
    if not root.is_dir():
        raise PipelineError(f"--corpus {corpus}: no such folder; name a LibriSpeech root")
    workers = WorkerConfig(in_process=True, threads_per_worker=1)
    with command(as_json) as running, prefect_api() as api:
        from flows.front_flow import front_flow

        api.ready()
        to = Location.of(runs).uri
        page = front_flow(recipe, selected, root.uri, to, workers, found_only, name)
        missing = sum(len(entry.seeds) for entry in page.missing)
        result = {"runs": page.num_runs, "missing": missing, "seconds": round(running.seconds, 3)}
        if page.markdown is None:
            running.finish(result, "no entry of the front is trained yet")
            return
        text = f"{_header()}\n{page.markdown}"
        if record is not None:
            file = Location.of(record)
            file.write_bytes(text.encode())
            file.parent.child(f"{name}.csv").write_bytes(page.table.encode())
            for plot in page.plots:
                file.parent.child(f"{plot.name}.png").write_bytes(plot.png)
            running.finish(result, f"front: {file} ({page.num_runs} runs, {missing} missing)")
        else:
            running.finish(result, text)


def _header() -> str:
    """Title, command, time, machine and versions."""
    versions = software_versions("torch", "numpy", "kaldialign")
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join(
        [
            "# Accuracy against computation: the front",
            "",
            "```",
            shlex.join(["spikeline", *sys.argv[1:]]),
            "```",
            "",
            f"- made {timestamp()}",
            f"- {processor()}; {said}",
            "",
        ]
    )
