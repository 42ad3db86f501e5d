"""What a stage costs per hour of audio, and what that comes to on more machines.

A stage's time on one worker is taken for a line over the hours of audio h, ``t(h) = a + b h``.
Work that is spread over W workers takes ``b h / (W e)`` with the parallel efficiency e. A training
step of B sequences takes ``t(B) = a + b B`` on one worker; W workers have B / W each, so that
``e = (t(B) / B) / (t(B / W) / (B / W))``, and the gradients' all-reduce over a ring moves
``2 (W - 1) / W`` times their bytes through every node. Everything here is arithmetic; what it
starts from is measured by ``flows.scaling.benchmark``.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field
from scipy.optimize import nnls

from featurize.stage import PipelineError, TypedConfig
from training.train_config import CurriculumStage

_GRADIENT_BYTES = 4


class Cost(TypedConfig):
    """A line through measured times."""

    fixed_s: float = Field(description="What it costs whatever the amount.")
    per_unit_s: float = Field(description="What one more unit costs: an hour, a sequence.")
    worst_deviation: float = Field(description="Largest relative distance of a time from the line.")

    def at(self, amount: float) -> float:
        """Seconds for so much."""
        return self.fixed_s + self.per_unit_s * amount


def fit_cost(amounts: Sequence[float], seconds: Sequence[float]) -> Cost:
    """The line, not below zero anywhere, whose relative distances from the times are least.

    Args:
        amounts: hours of audio, or sequences; at least two different ones.
        seconds: measured for each.

    Raises:
        PipelineError: when there are too few different amounts.
    """
    if len(set(amounts)) < 2:
        raise PipelineError("a line needs two different amounts; measure at more sizes")
    x, t = np.asarray(amounts, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
    scale = float(x.max())
    design = np.stack([1.0 / t, x / scale / t], axis=1)
    (fixed, slope), _ = nnls(design, np.ones(len(t)))
    line = Cost(fixed_s=float(fixed), per_unit_s=float(slope) / scale, worst_deviation=0.0)
    worst = max(abs(line.at(a) / s - 1.0) for a, s in zip(x.tolist(), t.tolist(), strict=True))
    return line.model_copy(update={"worst_deviation": worst})


def parallel_efficiency(alone_s: float, together_s: float, num_workers: int) -> float:
    """Share of W times the speed of one worker that W of them reach."""
    return alone_s / (num_workers * together_s)


def step_efficiency(step: Cost, batch_size: int, num_workers: int) -> float:
    """The same for a training step whose batch is shared out, communication aside.

    Args:
        step: over the sequences of one worker.
        batch_size: sequences of all workers together.
        num_workers: as many or fewer.
    """
    share = batch_size / num_workers
    return (step.at(batch_size) / batch_size) / (step.at(share) / share)


def all_reduce_s(num_parameters: int, num_workers: int, gbit_s: float) -> float:
    """Seconds that a ring needs to sum float32 gradients, latency aside."""
    share = 2.0 * (num_workers - 1) / num_workers
    return share * _GRADIENT_BYTES * num_parameters * 8.0 / (gbit_s * 1e9)


def speakers_of_shard(num_speakers: int, utterances_per_shard: int) -> float:
    """Expected different speakers among utterances drawn from all of them alike."""
    return num_speakers * (1.0 - (1.0 - 1.0 / num_speakers) ** utterances_per_shard)


class SpeechCorpus(TypedConfig):
    """What a projection is made for."""

    name: str = Field(description="As it is known.")
    hours: float = Field(description="Training speech.")
    num_utterances: int = Field(description="Of it.")
    num_speakers: int = Field(description="Of it.")

    @property
    def utterance_s(self) -> float:
        """Mean length of an utterance."""
        return 3600.0 * self.hours / self.num_utterances


class ClusterShape(TypedConfig):
    """Machines of one kind."""

    name: str = Field(description="Short.")
    num_nodes: int = Field(description="Machines.")
    cores_per_node: int = Field(description="Cores like those measured.")
    network_gbit_s: float = Field(description="Of each node.")

    @property
    def num_cores(self) -> int:
        """Of all nodes."""
        return self.num_nodes * self.cores_per_node


# Hours, utterances and speakers of train-clean-100, train-clean-360 and train-other-500 together
# (Panayotov et al. 2015); the speakers of Libri-Light's unlab-60k (Kahn et al. 2020), cut into
# utterances as long as LibriSpeech's.
LIBRISPEECH = SpeechCorpus(
    name="LibriSpeech 960 h", hours=960.0, num_utterances=281_241, num_speakers=2_338
)
SIXTY_THOUSAND = SpeechCorpus(
    name="60,000 h", hours=60_000.0, num_utterances=17_577_563, num_speakers=7_439
)
CORPORA = (LIBRISPEECH, SIXTY_THOUSAND)
SHAPES = (
    ClusterShape(name="one-16", num_nodes=1, cores_per_node=16, network_gbit_s=10.0),
    ClusterShape(name="eight-16", num_nodes=8, cores_per_node=16, network_gbit_s=10.0),
    ClusterShape(name="sixty-four-32", num_nodes=64, cores_per_node=32, network_gbit_s=25.0),
)


class Rates(TypedConfig):
    """What was measured, per unit of work; times of one worker with one core, if not said."""

    scan_s_per_utterance: float = Field(description="Listing the corpus, in the driver.")
    shards: Cost = Field(description="Making shards, over hours of audio.")
    shard_efficiency: float = Field(description="Of as many workers as there are cores.")
    gather_s_per_part: float = Field(
        description="Adding the moments of one speaker in one shard, in the driver."
    )
    task_run_s: float | None = Field(
        description="A Prefect task run, in the flow; None: not known."
    )
    estimate: Cost = Field(
        description="Estimating Gaussians, over hours of the utterances used; one process."
    )
    align: Cost = Field(description="Aligning and writing, over hours of audio; one process.")
    epoch: Cost = Field(description="Training steps of an epoch, over hours of audio.")
    around_training_s: float = Field(description="Of a training, outside its epochs.")
    step: Cost = Field(description="A training step, over the sequences of the worker.")
    num_parameters: int = Field(description="Of the network.")
    index_s_per_utterance: float = Field(description="Reading label columns, in each worker.")
    plan_s_per_utterance: float = Field(description="Drawing an epoch's batches, in each worker.")
    evaluate: Cost = Field(description="Evaluating a model, over hours of audio; one process.")


class Workload(TypedConfig):
    """The settings that a projection is made with."""

    utterances_per_shard: int = Field(description="Of featurize.")
    num_estimation_utterances: int = Field(description="Of align.")
    curriculum: tuple[CurriculumStage, ...] = Field(description="Of train.")
    batch_size: int = Field(description="Of train.")
    frame_shift_s: float = Field(description="Between two rows of the features.")
    test_hours: float = Field(5.4, description="Scored by evaluate: LibriSpeech's test-clean.")

    @property
    def num_epochs(self) -> int:
        """Of all stages."""
        return sum(stage.num_epochs for stage in self.curriculum)

    def num_steps(self, corpus: SpeechCorpus) -> float:
        """Of all epochs: frames over those of a batch of full sequences."""
        utterance = corpus.utterance_s / self.frame_shift_s
        frames = 3600.0 * corpus.hours / self.frame_shift_s
        return sum(
            stage.num_epochs
            * frames
            / (self.batch_size * min(utterance, stage.chunk_frames or utterance))
            for stage in self.curriculum
        )


class StageTime(TypedConfig):
    """One line of a projection."""

    stage: str = Field(description="Which.")
    part: str = Field(description="Of it.")
    arithmetic: str = Field(description="How the seconds come about.")
    seconds: float = Field(description="The result.")


def project(
    rates: Rates, work: Workload, corpus: SpeechCorpus, shape: ClusterShape
) -> tuple[StageTime, ...]:
    """How long every part of every stage takes for a corpus on a cluster."""
    return (
        *_project_featurize(rates, work, corpus, shape),
        *_project_align(rates, work, corpus),
        *_project_train(rates, work, corpus, shape),
        StageTime(
            stage="evaluate",
            part="one process",
            arithmetic=f"{rates.evaluate.fixed_s:.3g} s + {work.test_hours:g} h of test speech x "
            f"{rates.evaluate.per_unit_s:.3g} s",
            seconds=rates.evaluate.at(work.test_hours),
        ),
    )


def num_shards(work: Workload, corpus: SpeechCorpus) -> int:
    """Files that featurize makes of the corpus."""
    return -(-corpus.num_utterances // work.utterances_per_shard)


def _project_featurize(
    rates: Rates, work: Workload, corpus: SpeechCorpus, shape: ClusterShape
) -> list[StageTime]:
    shards = num_shards(work, corpus)
    speakers = speakers_of_shard(corpus.num_speakers, work.utterances_per_shard)
    workers = min(shape.num_cores, shards)
    lines = [
        StageTime(
            stage="featurize",
            part="scan, driver",
            arithmetic=f"{corpus.num_utterances:,} utterances x "
            f"{1e6 * rates.scan_s_per_utterance:.3g} us",
            seconds=corpus.num_utterances * rates.scan_s_per_utterance,
        ),
        StageTime(
            stage="featurize",
            part="shards, all cores",
            arithmetic=f"{corpus.hours:,g} h x {rates.shards.per_unit_s:.3g} s / ({workers} "
            f"workers x {rates.shard_efficiency:.2f})",
            seconds=corpus.hours * rates.shards.per_unit_s / (workers * rates.shard_efficiency),
        ),
        StageTime(
            stage="featurize",
            part="gather, driver",
            arithmetic=f"{shards:,} shards x {speakers:.0f} speakers in each x "
            f"{1e6 * rates.gather_s_per_part:.3g} us",
            seconds=shards * speakers * rates.gather_s_per_part,
        ),
    ]
    if rates.task_run_s is not None:
        lines.append(
            StageTime(
                stage="featurize",
                part="Prefect, while shards are made",
                arithmetic=f"{shards:,} task runs x {1000 * rates.task_run_s:.3g} ms",
                seconds=shards * rates.task_run_s,
            )
        )
    return lines


def _project_align(rates: Rates, work: Workload, corpus: SpeechCorpus) -> list[StageTime]:
    used = min(corpus.num_utterances, work.num_estimation_utterances)
    used_hours = used * corpus.utterance_s / 3600.0
    return [
        StageTime(
            stage="align",
            part="estimate, one process",
            arithmetic=f"{rates.estimate.fixed_s:.3g} s + {used:,} utterances = {used_hours:.1f} h "
            f"x {rates.estimate.per_unit_s:.3g} s",
            seconds=rates.estimate.at(used_hours),
        ),
        StageTime(
            stage="align",
            part="align and write, one process",
            arithmetic=f"{corpus.hours:,g} h x {rates.align.per_unit_s:.3g} s",
            seconds=corpus.hours * rates.align.per_unit_s,
        ),
    ]


def _project_train(
    rates: Rates, work: Workload, corpus: SpeechCorpus, shape: ClusterShape
) -> list[StageTime]:
    workers = min(shape.num_cores, work.batch_size)
    efficiency = step_efficiency(rates.step, work.batch_size, workers)
    steps = work.num_steps(corpus)
    reduce_s = all_reduce_s(rates.num_parameters, workers, shape.network_gbit_s)
    epochs, compute = work.num_epochs, rates.epoch.per_unit_s
    reading_s = rates.index_s_per_utterance + epochs * rates.plan_s_per_utterance
    return [
        StageTime(
            stage="train",
            part="steps, a core a worker",
            arithmetic=f"{epochs} epochs x {corpus.hours:,g} h x {compute:.4g} s / ({workers} "
            f"workers x {efficiency:.2f})",
            seconds=epochs * corpus.hours * compute / (workers * efficiency),
        ),
        StageTime(
            stage="train",
            part="all-reduce, if nothing hides it",
            arithmetic=f"{steps:,.0f} steps x 2 x {workers - 1}/{workers} x {_GRADIENT_BYTES} bytes"
            f" x {rates.num_parameters:,} parameters x 8 / {shape.network_gbit_s:g} Gbit/s",
            seconds=steps * reduce_s,
        ),
        StageTime(
            stage="train",
            part="index and plans, every worker",
            arithmetic=f"{corpus.num_utterances:,} utterances x "
            f"({1e6 * rates.index_s_per_utterance:.3g} us + {epochs} epochs x "
            f"{1e6 * rates.plan_s_per_utterance:.3g} us)",
            seconds=corpus.num_utterances * reading_s,
        ),
        StageTime(
            stage="train",
            part="start and end",
            arithmetic=f"{rates.around_training_s:.3g} s",
            seconds=rates.around_training_s,
        ),
    ]
