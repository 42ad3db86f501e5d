"""``spikeline bench scaling``: what every stage costs as data and workers grow.

The stages of a recipe run on growing parts of one corpus, as they do in a pipeline, without
Prefect. Featurize and train also run on several workers at the largest size; align and evaluate are
one process. Then what grows in memory is measured per piece, and everything goes to
``flows.scaling.costs`` for projections.
"""

import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch

from evaluation.evaluate import evaluate
from featurize.featurize import FeaturizePlan, finish_featurize, plan_featurize
from featurize.make_shard import ShardPlan, make_shard
from featurize.schema import FeaturizeManifest
from featurize.stage import (
    FanOut,
    Location,
    available_cores,
    read_manifest,
    run_fan_out,
    software_versions,
    timestamp,
    write_manifest,
)
from flows.scaling.costs import Cost, Rates, Workload, fit_cost, parallel_efficiency
from flows.scaling.footprint import (
    epoch_plan,
    made_up_index,
    manifest_bytes_per_shard,
    plan_bytes,
    read_share,
    speaker_part,
    traced_bytes,
)
from flows.scaling.limits import Pieces, find_limits
from flows.scaling.parts import hours_of, part_of_features, part_of_plan
from flows.scaling.process_memory import Peaks, watched_peaks
from flows.scaling.result import (
    Footprint,
    Measurement,
    ReadShare,
    ScaledStages,
    ScalingConfig,
    ScalingResult,
)
from training import process_environment
from training.align.align import AlignProgress, align
from training.align.config import AlignConfig
from training.checkpoint import CheckpointStore, num_outputs
from training.data import TrainingData, index_split
from training.loop import TrainingLoop
from training.manifest import TrainManifest
from training.models.build import build_network
from training.train import train
from training.train_config import CurriculumStage, TrainConfig
from training.worker_config import WorkerConfig

logger = logging.getLogger(__name__)

FEATURIZE, ESTIMATE, ALIGN, TRAIN, EVALUATE = (
    *("featurize: shards", "align: estimate", "align: align and write"),
    *("train: an epoch", "evaluate"),
)
_NUM_STEPS = 3
_NUM_SEEN = 16
_READ_BY = (2, 4, 8, 16, 32, 64)

TaskRunTime = Callable[[int], float]
"""Seconds that each of so many Prefect task runs takes."""


def bench_scaling(
    stages: ScaledStages,
    work: Workload,
    corpus: Location,
    config: ScalingConfig,
    *,
    corpus_name: str,
    task_run_time: TaskRunTime | None = None,
) -> ScalingResult:
    """Measure every stage at growing sizes and numbers of workers.

    Args:
        stages: what the stages do.
        work: what is projected.
        corpus: root of a corpus that has the subsets of ``stages.featurize``.
        config: how much to measure.
        corpus_name: what the corpus is, in words.
        task_run_time: times Prefect; left out where None.

    Raises:
        PipelineError: when a stage fails.
    """
    with tempfile.TemporaryDirectory(prefix="spikeline-bench-") as folder:
        return _Bench(stages, work, corpus, config, Location.of(folder)).run(
            corpus_name, task_run_time
        )


@dataclass
class _Clock:
    """Wall and CPU time of this process, and peaks of memory, over a stretch."""

    peaks: Peaks = field(default_factory=Peaks)
    started: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0
    cpu_s: float = 0.0

    @property
    def so_far_s(self) -> float:
        return time.perf_counter() - self.started

    @property
    def cores(self) -> float:
        return self.cpu_s / self.seconds


@contextmanager
def _clocked() -> Iterator[_Clock]:
    clock = _Clock()
    with watched_peaks() as clock.peaks:
        clock.started, cpu_started = time.perf_counter(), time.process_time()
        yield clock
        clock.seconds = clock.so_far_s
        clock.cpu_s = time.process_time() - cpu_started


class _Bench:
    """One run of the benchmark."""

    def __init__(
        self,
        stages: ScaledStages,
        work: Workload,
        corpus: Location,
        config: ScalingConfig,
        folder: Location,
    ) -> None:
        self.stages = stages
        self.work = work
        self.corpus = corpus
        self.config = config
        self.folder = folder
        self.largest = max(config.factors)
        self.measurements: list[Measurement] = []

    def run(self, corpus_name: str, task_run_time: TaskRunTime | None) -> ScalingResult:
        """Measure everything, in the order of the stages."""
        with _clocked() as scanning:
            plan = plan_featurize(self.stages.featurize, self.corpus, self.folder)
        num_utterances = sum(len(shard.entries) for shard in plan.shards)
        features, manifest = self._featurize(plan)
        aligned = self._align(features, manifest)
        targets = read_manifest(aligned, FeaturizeManifest)
        around_training_s, model = self._train(aligned, targets)
        self._evaluate(aligned, targets, model)
        steps = process_environment.call(
            step_times,
            self._training(),
            aligned,
            tuple(sorted(self.config.step_sequences)),
            self.config.step_frames,
        )
        index_s = self._index(aligned, targets)
        part = speaker_part(manifest.num_features)
        plan_s, index_bytes, reads = self._plans()
        trained = read_manifest(model, TrainManifest)
        rates = Rates(
            scan_s_per_utterance=scanning.seconds / num_utterances,
            shards=self._line(FEATURIZE),
            shard_efficiency=self._efficiency(FEATURIZE),
            gather_s_per_part=part.seconds,
            task_run_s=None if task_run_time is None else task_run_time(self.config.num_task_runs),
            estimate=self._line(ESTIMATE),
            align=self._line(ALIGN),
            epoch=self._line(TRAIN),
            around_training_s=around_training_s,
            step=fit_cost(tuple(steps), tuple(steps.values())),
            num_parameters=trained.num_parameters,
            index_s_per_utterance=index_s,
            plan_s_per_utterance=plan_s,
            evaluate=self._line(EVALUATE),
        )
        footprint = Footprint(
            entry_bytes=plan_bytes(self.stages.featurize, self.config.num_planned),
            part_bytes=part.num_bytes,
            index_bytes=index_bytes,
            manifest_bytes=manifest_bytes_per_shard(targets),
            stored_bytes_per_hour=sum(s.num_bytes for s in targets.shards) / hours_of(targets),
        )
        pieces = Pieces(
            entry_bytes=footprint.entry_bytes,
            part_bytes=footprint.part_bytes,
            index_bytes=footprint.index_bytes,
            manifest_bytes=footprint.manifest_bytes,
            row_group_size=self.stages.featurize.row_group_size,
        )
        return ScalingResult(
            config=self.config,
            stages=self.stages,
            corpus=corpus_name,
            measurements=tuple(self.measurements),
            steps=steps,
            num_targets=targets.num_frame_targets,
            rates=rates,
            work=self.work,
            footprint=footprint,
            reads=reads,
            limits=find_limits(rates, self.work, pieces),
            num_cores=available_cores(),
            num_threads=torch.get_num_threads(),
            versions=software_versions("torch", "numpy", "pyarrow", "ray", "prefect"),
            measured_at=timestamp(),
        )

    def _note(
        self, stage: str, hours: float, seconds: float, clock: _Clock, num_workers: int = 1
    ) -> None:
        is_alone = clock.peaks.worker_mib == 0.0
        logger.info("%s, %.3f h, %d workers: %.2f s", stage, hours, num_workers, seconds)
        self.measurements.append(
            Measurement(
                stage=stage,
                hours=hours,
                num_workers=num_workers,
                seconds=seconds,
                cores=clock.cores if is_alone else 0.0,
                driver_mib=clock.peaks.own_mib,
                worker_mib=clock.peaks.worker_mib,
            )
        )

    def _of(self, stage: str) -> list[Measurement]:
        return [found for found in self.measurements if found.stage == stage]

    def _line(self, stage: str) -> Cost:
        alone = [found for found in self._of(stage) if found.num_workers == 1]
        return fit_cost([found.hours for found in alone], [found.seconds for found in alone])

    def _efficiency(self, stage: str) -> float:
        """Of as many workers as there are cores, or as near below as was measured."""
        fitting = [m for m in self._of(stage) if m.num_workers <= available_cores()]
        several = max(fitting, key=lambda m: (m.num_workers, m.hours))
        alone = max(
            (m for m in fitting if m.num_workers == 1), key=lambda measurement: measurement.hours
        )
        return parallel_efficiency(alone.seconds, several.seconds, several.num_workers)

    def _sizes_and_workers(self) -> list[tuple[int, int]]:
        """Every size with one worker, then the largest with more."""
        sizes = [(factor, 1) for factor in sorted(self.config.factors)]
        return [*sizes, *((self.largest, n) for n in sorted(self.config.workers) if n > 1)]

    def _featurize(self, plan: FeaturizePlan) -> tuple[Location, FeaturizeManifest]:
        # Compiled functions are loaded once, whatever the amount of audio.
        warm_up = part_of_plan(plan, 0, self.largest, self.folder.child("warm-up"))
        run_fan_out(make_shard, warm_up.shards, FanOut(kind="sequential"))
        for factor, workers in self._sizes_and_workers():
            fan_out = FanOut(
                kind="sequential" if workers == 1 else "processes", num_workers=workers
            )
            place = self.folder.child("shards", f"{factor}-{workers}")
            once = self._passes(plan, factor, place.child("once"), 1)
            often = self._passes(plan, factor, place.child("often"), 1 + self.config.num_passes)
            with _clocked() as clock:
                results = run_fan_out(make_shard, once, fan_out)
                once_s = clock.so_far_s
                run_fan_out(make_shard, often, fan_out)
                often_s = clock.so_far_s - once_s
            hours = sum(r.num_samples for r in results) / plan.config.sample_rate_hz / 3600
            # The difference, so that the start of the processes is none of it. It can drown in
            # noise: a pass then counts as a millisecond.
            pass_s = max((often_s - once_s) / self.config.num_passes, 1e-3)
            self._note(FEATURIZE, hours, pass_s, clock, workers)
        whole = part_of_plan(plan, self.largest, self.largest, self.folder.child("featurize"))
        manifest = finish_featurize(
            whole, run_fan_out(make_shard, whole.shards, FanOut(kind="sequential"))
        )
        write_manifest(whole.location, manifest)
        return whole.location, manifest

    def _passes(
        self, plan: FeaturizePlan, factor: int, place: Location, number: int
    ) -> list[ShardPlan]:
        """The same shards, to be made so many times."""
        return [
            shard
            for again in range(number)
            for shard in part_of_plan(plan, factor, self.largest, place.child(str(again))).shards
        ]

    def _align(self, features: Location, manifest: FeaturizeManifest) -> Location:
        """Align every size; returns the largest, aligned."""
        aligned = features
        one_of_each = dict.fromkeys(manifest.splits, 0)
        warm_up = self.folder.child("align", "warm-up")
        part_of_features(features, manifest, one_of_each, self.largest, warm_up)
        quick = self.stages.align.model_copy(update={"num_gaussian_rounds": 1})
        align(quick, warm_up, self.folder.child("align-runs-warm-up"), WorkerConfig())
        for factor in sorted(self.config.factors):
            place = self.folder.child("align", str(factor))
            factors = dict.fromkeys(manifest.splits, factor)
            part = part_of_features(features, manifest, factors, self.largest, place)
            marks: list[float] = []

            def told(progress: AlignProgress, marks: list[float] = marks) -> None:
                if progress.step == "aligning" and not marks:
                    marks.append(time.perf_counter())

            config = self._align_config(factor)
            with _clocked() as clock:
                started = time.perf_counter()
                aligned = align(
                    config,
                    place,
                    self.folder.child(f"align-runs-{factor}"),
                    WorkerConfig(),
                    on_progress=told,
                ).location
            estimating_s = marks[0] - started
            used = self._estimation_hours(part, config.num_estimation_utterances)
            self._note(ESTIMATE, used, estimating_s, clock)
            self._note(ALIGN, hours_of(part), clock.seconds - estimating_s, clock)
        return aligned

    def _align_config(self, factor: int) -> AlignConfig:
        """With estimation utterances that grow with the size, as far as they do."""
        number = max(1, self.stages.align.num_estimation_utterances * factor // self.largest)
        return self.stages.align.model_copy(update={"num_estimation_utterances": number})

    def _estimation_hours(self, part: FeaturizeManifest, at_most: int) -> float:
        """Of the utterances that Gaussians are estimated on, spread evenly over the train split."""
        total = sum(part.subsets[name].num_utterances for name in part.splits["train"])
        every = -(-total // at_most)
        return hours_of(part, "train") * -(-total // every) / total

    def _training(self) -> TrainConfig:
        stage = CurriculumStage(
            num_epochs=self.config.num_epochs,
            chunk_frames=self.stages.train.curriculum[-1].chunk_frames,
        )
        return self.stages.train.model_copy(
            update={"curriculum": (stage,), "quantization_schedule": None}
        )

    def _train(self, aligned: Location, manifest: FeaturizeManifest) -> tuple[float, Location]:
        config, around, model = self._training(), [], aligned
        for factor, workers in self._sizes_and_workers():
            place = self.folder.child("training", f"{factor}-{workers}")
            factors = {"train": factor, "dev": 1, "test": 1}
            part = part_of_features(aligned, manifest, factors, self.largest, place)
            with _clocked() as clock:
                model = train(
                    config,
                    place,
                    self.folder.child(f"training-runs-{factor}-{workers}"),
                    self._workers(workers),
                ).location
            epochs = read_manifest(model, TrainManifest).metrics
            around.append(clock.seconds - sum(epoch.seconds for epoch in epochs))
            # The steps alone: the dev split is as large for any amount of training speech.
            epoch_s = statistics.median(e.num_frames / e.frames_per_s for e in epochs[1:])
            self._note(TRAIN, hours_of(part, "train"), epoch_s, clock, workers)
        return statistics.median(around), model

    def _workers(self, number: int) -> WorkerConfig:
        """A core each, or a share of one where there are more workers than cores."""
        return WorkerConfig(
            num_workers=number,
            cpus_per_worker=min(1.0, available_cores() / number),
            threads_per_worker=1,
            in_process=not self.config.use_ray,
        )

    def _evaluate(self, aligned: Location, manifest: FeaturizeManifest, model: Location) -> None:
        one_of_each = dict.fromkeys(("train", "dev", "test"), 0)
        warm_up = self.folder.child("evaluation", "warm-up")
        part_of_features(aligned, manifest, one_of_each, self.largest, warm_up)
        evaluate(self.stages.evaluate, [model], warm_up, self.folder.child("evaluations"))
        for factor in sorted(self.config.factors):
            place = self.folder.child("evaluation", str(factor))
            factors = {"train": 1, "dev": 1, "test": factor}
            part = part_of_features(aligned, manifest, factors, self.largest, place)
            with _clocked() as clock:
                evaluate(self.stages.evaluate, [model], place, self.folder.child("evaluations"))
            self._note(EVALUATE, hours_of(part, "test"), clock.seconds, clock)

    def _index(self, aligned: Location, manifest: FeaturizeManifest) -> float:
        """Seconds per utterance of reading the label columns, footers known."""
        index_split(aligned, manifest, "train", self.stages.train.objective)
        started = time.perf_counter()
        found = index_split(aligned, manifest, "train", self.stages.train.objective)
        return (time.perf_counter() - started) / len(found.rows)

    def _plans(self) -> tuple[float, float, tuple[ReadShare, ...]]:
        """Time and memory per utterance of an epoch's plan, and who reads how much of it."""
        config, number = self.stages.train, self.config.num_planned
        group = self.stages.featurize.row_group_size
        chunk = config.curriculum[0].chunk_frames
        window = config.shuffle_window_rows
        index = made_up_index(number, self.work.utterances_per_shard, group)
        started = time.perf_counter()
        plan = epoch_plan(index, config.batch_size, chunk, window)
        plan_s = (time.perf_counter() - started) / number
        num_bytes = traced_bytes(
            lambda: (
                kept := made_up_index(number, self.work.utterances_per_shard, group),
                epoch_plan(kept, config.batch_size, chunk, window),
            )
        )
        reads = tuple(
            ReadShare(num_workers=workers, share=read_share(index, plan, workers))
            for workers in _READ_BY
            if workers <= config.batch_size
        )
        return plan_s, num_bytes / number, reads


def step_times(
    config: TrainConfig, aligned: Location, sizes: tuple[int, ...], num_frames: int
) -> dict[int, float]:
    """Median seconds of a training step on one thread, by its number of sequences.

    Args:
        config: what is trained.
        aligned: a feature set with frame targets.
        sizes: sequences of a step.
        num_frames: of each sequence.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {size: _step_s(config, aligned, size, num_frames) for size in sizes}
    finally:
        torch.set_num_threads(threads)


def _step_s(config: TrainConfig, aligned: Location, size: int, num_frames: int) -> float:
    stage = CurriculumStage(num_epochs=1, chunk_frames=num_frames)
    config = config.model_copy(update={"curriculum": (stage,), "batch_size": size})
    manifest = read_manifest(aligned, FeaturizeManifest)
    torch.manual_seed(config.seed)
    outputs = num_outputs(len(manifest.labels.symbols), config.objective, manifest.states)
    network = build_network(config.model, manifest.num_features, outputs).train()
    data = TrainingData(aligned, manifest, config)
    # Single steps write no checkpoint, so the store's place stays empty.
    nowhere = CheckpointStore(Location.of(Path(tempfile.gettempdir())))
    loop = TrainingLoop(network, network, config, data, nowhere)
    step = max(islice(data.train_steps(0), _NUM_SEEN), key=lambda step: step.num_frames)
    times = []
    for _ in range(1 + _NUM_STEPS):
        started = time.perf_counter()
        loop.train_step(0, step)
        times.append(time.perf_counter() - started)
    # As if every sequence were as long as it may be, and the batch full.
    return statistics.median(times[1:]) * size * num_frames / step.num_frames
