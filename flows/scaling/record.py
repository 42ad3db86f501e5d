"""The scaling benchmark as a page: measured, fitted, projected, and what gives out first."""

from collections.abc import Sequence

from evaluation.benchmark_records import page_head
from evaluation.engine.curve_plot import markdown_table
from flows.scaling.benchmark import EVALUATE, FEATURIZE, TRAIN
from flows.scaling.costs import (
    CORPORA,
    SHAPES,
    SIXTY_THOUSAND,
    ClusterShape,
    Cost,
    SpeechCorpus,
    StageTime,
    all_reduce_s,
    num_shards,
    project,
    step_efficiency,
)
from flows.scaling.limits import READS_PER_GROUP, S3_GETS_PER_S
from flows.scaling.result import ScalingResult

_WORTH_IT = 0.5
"""Efficiency below which more workers are called little gain."""
_BESIDE = ("Prefect, while shards are made",)
"""Parts that go on beside others of their stage, so that the longer of the two counts."""


def scaling_page(result: ScalingResult, command: Sequence[str]) -> str:
    """All of it, as markdown."""
    return (
        "\n".join(
            [
                *page_head("Scaling", command, result.measured_at, result.versions),
                *_what(result),
                "",
                "## In short",
                "",
                *_in_short(result),
                "",
                "## Measured",
                "",
                *_measured(result),
                "",
                "## Cost per hour of audio",
                "",
                *_fitted(result),
                "",
                "## Workers",
                "",
                *_workers(result),
                "",
                "## Projected",
                "",
                *_projected(result),
                "",
                "## What breaks first",
                "",
                *_limits(result),
            ]
        ).rstrip()
        + "\n"
    )


def _what(result: ScalingResult) -> list[str]:
    train, model = result.stages.train, result.stages.train.model
    return [
        f"- on {result.corpus}; {result.num_cores} cores, {result.num_threads} compute threads a "
        "process, one a training worker",
        f"- featurize: {result.stages.featurize.num_features} features, "
        f"{result.stages.featurize.utterances_per_shard} utterances a shard; align: "
        f"{result.num_targets} frame targets at the largest size; train: {model.model}, "
        f"{model.num_layers} x {model.hidden_size}, batches of {train.batch_size}, sequences of at "
        f"most {train.curriculum[-1].chunk_frames} frames, {result.config.num_epochs} epochs; "
        f"evaluate: one model, decoder {result.stages.evaluate.decoder}, "
        + ("words too" if result.stages.evaluate.words else "no words"),
    ]


def _in_short(result: ScalingResult) -> list[str]:
    rates, first = result.rates, result.limits[0]
    train = result.stages.train
    return [
        "An hour of audio costs, in seconds of one core: "
        f"featurize {_short(rates.shards.per_unit_s)}, align {_short(rates.align.per_unit_s)}, an "
        f"epoch of training {train.model.model} {_short(rates.epoch.per_unit_s)}; an hour of test "
        f"speech, evaluate {_short(rates.evaluate.per_unit_s)}. Featurize and train spread over "
        "workers; align and evaluate do not.",
        "",
        f"First to give out, at some {first.hours:,.0f} h of audio: {first.what} "
        f"({first.figure}; {first.bound}). Remedy: {first.remedy}.",
    ]


def _measured(result: ScalingResult) -> list[str]:
    return [
        "Featurize, align and train run on growing parts of one corpus; evaluate on growing parts "
        "of its test speech. Workers of featurize and train have a core each, as long as there are "
        "so many; align and evaluate are one process. Shards are made several times over, and a "
        "pass more is what counts, not the start of processes. Training counts its steps alone: "
        "the median epoch after the first, the dev split left out. The model that is evaluated "
        "has hardly been trained: spikes are denser, and evaluating dearer, than later.",
        "",
        *markdown_table(
            [
                {
                    "Stage": row.stage,
                    "Audio, min": f"{60 * row.hours:.2f}",
                    "Workers": str(row.num_workers),
                    "Time, s": f"{row.seconds:.2f}",
                    "Cores busy": f"{row.cores:.1f}" if row.cores else "-",
                    "Driver's peak, MiB": f"{row.driver_mib:,.0f}",
                    "Worker's peak, MiB": f"{row.worker_mib:,.0f}" if row.worker_mib else "-",
                }
                for row in result.measurements
            ]
        ),
    ]


def _fitted(result: ScalingResult) -> list[str]:
    rates = result.rates
    lines: list[tuple[str, Cost, str]] = [
        (FEATURIZE, rates.shards, "hour of audio"),
        ("align: estimate", rates.estimate, "hour of the utterances used"),
        ("align: align and write", rates.align, "hour of audio"),
        (TRAIN, rates.epoch, "hour of audio"),
        (EVALUATE, rates.evaluate, "hour of test speech"),
        ("train: a step", rates.step, f"sequence of {result.config.step_frames} frames"),
    ]
    other = [
        ("featurize: scan", f"{1e6 * rates.scan_s_per_utterance:.1f} us", "utterance"),
        (
            "featurize: gather",
            f"{1e6 * rates.gather_s_per_part:.1f} us",
            "speaker in a shard",
        ),
        ("train: read the index", f"{1e6 * rates.index_s_per_utterance:.1f} us", "utterance"),
        ("train: draw batches", f"{1e6 * rates.plan_s_per_utterance:.1f} us", "utterance, epoch"),
        ("train: start and end", f"{rates.around_training_s:.1f} s", "training"),
    ]
    if rates.task_run_s is not None:
        other.append(("Prefect", f"{1000 * rates.task_run_s:.1f} ms", "task run"))
    return [
        "A line through the times of one worker, `fixed + cost x amount`, by least relative "
        "squares and never below zero:",
        "",
        *markdown_table(
            [
                {
                    "Stage": name,
                    "Fixed, s": f"{line.fixed_s:.2f}",
                    "Cost, s": f"{line.per_unit_s:.4g}",
                    "per": unit,
                    "Furthest from the line": f"{line.worst_deviation:.0%}",
                }
                for name, line, unit in lines
            ]
        ),
        "",
        *markdown_table([{"What": name, "Cost": cost, "per": unit} for name, cost, unit in other]),
    ]


def _workers(result: ScalingResult) -> list[str]:
    batch, step = result.work.batch_size, result.rates.step
    numbers = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= batch]
    reads = {read.num_workers: read.share for read in result.reads}
    return [
        f"At the largest size. This machine has {result.num_cores} cores: more workers than that "
        "share them, so they show what more processes cost and no more speed; `of the cores` is "
        "the share of what the cores they have could do.",
        "",
        *markdown_table(_worker_rows(result)),
        "",
        f"A batch of {batch} is shared out among the workers, and a step of few sequences is "
        "dearer for each; measured on one core, communication left out. Beside it, the share of an "
        "epoch's row groups that each worker opens, by the batch plan:",
        "",
        *markdown_table(
            [
                {
                    "Workers": str(number),
                    "Sequences each": f"{batch / number:g}",
                    "Step, s, by the line": f"{step.at(batch / number):.3f}",
                    "Efficiency": f"{step_efficiency(step, batch, number):.0%}",
                    "Row groups opened": f"{reads.get(number, 1.0):.0%}",
                }
                for number in numbers
            ]
        ),
        "",
        "Steps as measured: "
        + ", ".join(f"{size} sequences {time_s:.3f} s" for size, time_s in result.steps.items())
        + ".",
    ]


def _worker_rows(result: ScalingResult) -> list[dict[str, str]]:
    rows = []
    for stage in (FEATURIZE, TRAIN):
        found = [row for row in result.measurements if row.stage == stage]
        most = max(row.hours for row in found)
        largest = [row for row in found if row.hours == most]
        alone_s = next(row.seconds for row in largest if row.num_workers == 1)
        for row in largest:
            speed = alone_s / row.seconds
            cores = min(row.num_workers, result.num_cores)
            rows.append(
                {
                    "Stage": stage,
                    "Workers": str(row.num_workers),
                    "Time, s": f"{row.seconds:.2f}",
                    "Times as fast": f"{speed:.2f}",
                    "Efficiency": f"{speed / row.num_workers:.0%}",
                    "Of the cores": f"{speed / cores:.0%}",
                }
            )
    return rows


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{_short(seconds)} s"
    if seconds < 5_400:
        return f"{seconds / 60:.1f} min"
    hours = seconds / 3_600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def _projected(result: ScalingResult) -> list[str]:
    work = result.work
    lines = [
        "Cores like these, as many as a shape has; the efficiency of shards is that of this "
        "machine's cores, and training workers have a core each and cannot be more than a batch "
        f"has sequences ({work.batch_size}). {work.num_epochs} epochs in the curriculum of the "
        f"recipe, {work.utterances_per_shard} utterances a shard. Test speech: "
        f"{work.test_hours:g} h. Nothing here was run at that size; a GPU was not measured.",
        "",
        *markdown_table(
            [
                {
                    "Shape": shape.name,
                    "Nodes": str(shape.num_nodes),
                    "Cores each": str(shape.cores_per_node),
                    "Network each, Gbit/s": f"{shape.network_gbit_s:g}",
                }
                for shape in SHAPES
            ]
        ),
        "",
        "Hours of a pipeline with one model:",
        "",
        *markdown_table([_summary_row(result, corpus, shape) for corpus, shape in _cases()]),
    ]
    for corpus, shape in _cases():
        lines += ["", f"### {corpus.name} on {shape.name}", ""]
        lines += markdown_table(
            [
                {
                    "Stage": line.stage,
                    "Part": line.part,
                    "Arithmetic": line.arithmetic,
                    "Time": _duration(line.seconds),
                }
                for line in project(result.rates, work, corpus, shape)
            ]
        )
    return lines


def _cases() -> list[tuple[SpeechCorpus, ClusterShape]]:
    return [(corpus, shape) for corpus in CORPORA for shape in SHAPES]


def stage_seconds(lines: Sequence[StageTime]) -> dict[str, float]:
    """Seconds of each stage: its parts one after another, unless they go on beside another."""
    totals: dict[str, float] = {}
    for line in lines:
        if line.part not in _BESIDE:
            totals[line.stage] = totals.get(line.stage, 0.0) + line.seconds
    beside = sum(line.seconds for line in lines if line.part in _BESIDE)
    made = sum(line.seconds for line in lines if line.part.startswith("shards"))
    totals["featurize"] += max(0.0, beside - made)
    return totals


def _summary_row(
    result: ScalingResult, corpus: SpeechCorpus, shape: ClusterShape
) -> dict[str, str]:
    totals = stage_seconds(project(result.rates, result.work, corpus, shape))
    return {
        "Corpus": corpus.name,
        "Shape": shape.name,
        **{stage: _duration(seconds) for stage, seconds in totals.items()},
        "all": _duration(sum(totals.values())),
    }


def _limits(result: ScalingResult) -> list[str]:
    stored = result.footprint.stored_bytes_per_hour
    corpus, work = SIXTY_THOUSAND, result.work
    group = result.stages.featurize.row_group_size
    opened = corpus.num_utterances / group
    most = max(result.reads, key=lambda read: read.num_workers)
    times_read = most.num_workers * most.share
    return [
        f"Hours of audio at which each bound is met, for utterances of {corpus.utterance_s:.1f} s "
        f"by {corpus.num_speakers:,} speakers:",
        "",
        *markdown_table(
            [
                {
                    "At, h": f"{limit.hours:,.0f}",
                    "What": limit.what,
                    "Measured": limit.figure,
                    "Bound": limit.bound,
                    "What would move it": limit.remedy,
                }
                for limit in result.limits
            ]
        ),
        "",
        f"- Shards take {stored / 2**20:.1f} MiB an hour of audio, so {corpus.name} "
        f"{corpus.hours * stored / 2**40:.2f} TiB in {num_shards(work, corpus):,} files.",
        f"- Workers draw their sequences from all shards: of {opened:,.0f} row groups each of "
        f"{most.num_workers} workers opens {most.share:.0%}, together {times_read:.0f} times the "
        "corpus an epoch. At one epoch an hour that is "
        f"{times_read * opened * READS_PER_GROUP / 3600:,.0f} requests/s of S3, which states "
        f"{S3_GETS_PER_S:,.0f} for a prefix, and "
        f"{times_read * corpus.hours * stored * 8 / 3600 / 1e9:.1f} Gbit/s.",
        *_training_limits(result),
        "- The estimate of align holds its utterances in memory and is bounded by "
        f"num_estimation_utterances ({work.num_estimation_utterances:,}), but reads every training "
        "shard to pick them.",
        "- Evaluate does not grow with the training speech.",
    ]


def _training_limits(result: ScalingResult) -> list[str]:
    """Where more workers stop paying, and what the network adds to their steps."""
    step, batch = result.rates.step, result.work.batch_size
    numbers = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= batch]
    paying = max(n for n in numbers if step_efficiency(step, batch, n) >= _WORTH_IT)
    shape = SHAPES[1]
    reduce_s = all_reduce_s(result.rates.num_parameters, batch, shape.network_gbit_s)
    return [
        f"- Training's own bound is the batch: {batch} sequences keep {paying} workers at "
        f"{step_efficiency(step, batch, paying):.0%} of one worker's rate each, and more gain "
        "little. More machines than that need larger batches, which train otherwise, or "
        "trainings side by side.",
        f"- With a sequence of {result.config.step_frames} frames for each of {batch} workers a "
        f"step takes {1000 * step.at(1):.0f} ms, and gradients another {1000 * reduce_s:.0f} ms at "
        f"{shape.network_gbit_s:g} Gbit/s where backward does not hide them.",
    ]
