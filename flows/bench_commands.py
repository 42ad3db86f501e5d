"""The benchmark commands: measure, then say it as a table or as JSON."""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich import box
from rich.table import Table

from featurize.benchmark import BenchFeaturesConfig, bench_features
from featurize.corpora.synthetic import SyntheticConfig
from featurize.stage import Location, PipelineError
from flows.command import command, prefect_api
from flows.overrides import apply_overrides, configured
from flows.recipe_commands import synthesize_with_bar
from flows.recipes import recipe_named

_SYNTHETIC = SyntheticConfig(layout="librispeech", minutes=20.0)
_SYNTHETIC_SUBSET = "train-synthetic"


def run_bench_features(corpus: str | None, overrides: Sequence[str], as_json: bool) -> None:
    """Measure feature extraction on a corpus, or on synthetic speech where none is given."""
    default = BenchFeaturesConfig()
    if corpus is None:
        default = BenchFeaturesConfig(subset=_SYNTHETIC_SUBSET)
    config = configured(default, overrides)
    with command(as_json) as running, _speech(corpus) as root:
        result = bench_features(root, config)
        rates = _table("case", "audio hours per core hour", "of decoding alone")
        for rate in result.rates:
            rates.add_row(
                rate.case, f"{rate.hours_per_core_hour:,.0f}", f"{rate.share_of_decoding:.2f}"
            )
        memory = ", ".join(
            f"{peak.peak_mib:,.0f} MiB for {peak.num_utterances} utterances"
            for peak in result.peak_memory
        )
        running.finish(
            result.model_dump(mode="json"),
            f"{result.num_utterances} utterances, {60 * result.audio_hours:.1f} minutes of "
            + ("synthetic speech" if corpus is None else corpus),
            rates,
            f"peak memory: {memory}",
        )


@contextmanager
def _speech(corpus: str | None, synthetic: SyntheticConfig = _SYNTHETIC) -> Iterator[Location]:
    if corpus is not None:
        root = Location.of(corpus)
        if not root.is_dir():
            raise PipelineError(
                f"--corpus {corpus}: no such folder; name a LibriSpeech root, or leave the option "
                "out to measure on synthetic speech"
            )
        yield root
        return
    with tempfile.TemporaryDirectory(prefix="spikeline-bench-") as folder:
        synthesize_with_bar(Path(folder) / "corpus", synthetic)
        yield Location.of(Path(folder) / "corpus")


def run_bench_recurrence(overrides: Sequence[str], record: str | None, as_json: bool) -> None:
    """Measure the recurrences beside their peers."""
    with command(as_json) as running:
        # Torch is imported here, after nothing more can be wrong with the arguments' form.
        from training import process_environment
        from training.recurrence_benchmark import (
            RecurrenceBenchmarkConfig,
            run_recurrence_benchmark,
        )

        config = configured(RecurrenceBenchmarkConfig(), overrides)
        result = process_environment.call(run_recurrence_benchmark, config)
        rows = _table("case", "model", "spikes", "peer", "ours, ms", "peer, ms", "ratio", "asked")
        for row in result.rows:
            rows.add_row(
                row.case,
                row.model,
                " ".join(f"{100 * share:.0f}%" for share in row.spike_densities) or "-",
                row.peer,
                f"{1000 * row.our_time_s:.1f}",
                f"{1000 * row.peer_time_s:.1f}",
                f"{row.ratio:.2f}",
                "-" if row.required_ratio is None else f"{row.required_ratio:.2f}",
            )
        running.finish(
            result.model_dump(mode="json"),
            rows,
            *(
                f"{row.num_frames} frames: {row.time_per_frame_us:.2f} us per frame"
                for row in result.scaling
            ),
            *(f"not measured: {peer}: {why}" for peer, why in result.skipped.items()),
        )
        if record is not None:
            from evaluation.benchmark_records import recurrence_page

            Path(record).write_text(recurrence_page(result, sys.argv), encoding="utf-8")


def run_bench_epoch(
    recipe: str, features: str, overrides: Sequence[str], record: str | None, as_json: bool
) -> None:
    """Measure an epoch of a recipe's models through Ray Train."""
    with command(as_json) as running:
        from training.epoch_benchmark import bench_epoch
        from training.ray_trainer import fit

        chosen = apply_overrides(recipe_named(recipe), overrides)
        result = bench_epoch(chosen.models, Location.of(features), chosen.workers, fit)
        rows = _table("model", "epoch, s", "frames/s", "where a step's time goes")
        for row in result.times:
            parts = ", ".join(f"{part} {share:.0%}" for part, share in row.parts.items())
            rows.add_row(row.model, f"{row.epoch_s:.1f}", f"{row.frames_per_s:,.0f}", parts)
        running.finish(result.model_dump(mode="json"), rows)
        if record is not None:
            from evaluation.benchmark_records import epoch_page

            Path(record).write_text(epoch_page(result, sys.argv), encoding="utf-8")


def run_bench_scaling(
    recipe: str,
    corpus: str | None,
    minutes: float,
    overrides: Sequence[str],
    record: str | None,
    as_json: bool,
) -> None:
    """Measure what every stage costs as data and workers grow."""
    with command(as_json) as running, prefect_api() as api:
        from flows.scaling.benchmark import bench_scaling
        from flows.scaling.record import scaling_page
        from flows.scaling.setup import pick_subsets, scaling_setup, time_prefect

        chosen = recipe_named(recipe)
        synthetic = SyntheticConfig(
            layout="timit" if chosen.featurize.corpus == "timit" else "librispeech",
            minutes=minutes,
        )
        with _speech(corpus, synthetic) as root:
            name = f"{minutes:g} minutes of synthetic speech" if corpus is None else f"{corpus}"
            setup = scaling_setup(chosen, pick_subsets(chosen, root), overrides)
            result = bench_scaling(
                setup.stages,
                setup.work,
                root,
                setup.config,
                corpus_name=name,
                task_run_time=partial(time_prefect, api),
            )
        rows = _table("stage", "audio, min", "workers", "s", "driver, MiB")
        for row in result.measurements:
            rows.add_row(
                row.stage,
                f"{60 * row.hours:.2f}",
                str(row.num_workers),
                f"{row.seconds:.2f}",
                f"{row.driver_mib:,.0f}",
            )
        first = result.limits[0]
        running.finish(
            result.model_dump(mode="json"),
            rows,
            f"first to give out, at {first.hours:,.0f} h of audio: {first.what}",
        )
        if record is not None:
            Path(record).write_text(scaling_page(result, sys.argv), encoding="utf-8")


def run_bench_training(overrides: Sequence[str], as_json: bool) -> None:
    """Measure training steps of every model through the real loop."""
    with command(as_json) as running:
        from training import process_environment
        from training.benchmark import BenchTrainingConfig, bench_training

        config = configured(BenchTrainingConfig(), overrides)
        result = process_environment.call(bench_training, config)
        rates = _table("model", "step, ms", "frames/s", "faster than LSTM", "reading / step")
        for rate in result.rates:
            rates.add_row(
                rate.model,
                f"{1000 * rate.step_s:.1f}",
                f"{rate.frames_per_s:,.0f}",
                "-" if rate.faster_than_lstm is None else f"{rate.faster_than_lstm:.2f}",
                f"{rate.reading_share:.2f}",
            )
        running.finish(
            result.model_dump(mode="json"),
            rates,
            f"reading a batch from its shard takes {1000 * result.read_batch_s:.1f} ms, in a "
            "thread of its own, a batch ahead",
        )


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table
