"""What the scaling benchmark was asked, and what it found."""

from pydantic import Field

from evaluation.config import EvaluateConfig
from featurize.config import FeaturizeConfig
from featurize.stage import TypedConfig
from flows.scaling.costs import Rates, Workload
from flows.scaling.limits import Limit
from training.align.config import AlignConfig
from training.models.model_config import ModelName
from training.train_config import TrainConfig


class ScalingConfig(TypedConfig):
    """How much to measure."""

    model: ModelName = Field("v2", description="Which of the recipe's models is trained.")
    utterances_per_shard: int = Field(
        8, ge=1, description="Small, so that a part of the corpus is a number of whole shards."
    )
    factors: tuple[int, ...] = Field(
        (1, 2, 4, 8), min_length=2, description="Sizes, as multiples of the smallest."
    )
    workers: tuple[int, ...] = Field(
        (1, 2, 4), min_length=1, description="Numbers of workers, at the largest size."
    )
    num_passes: int = Field(
        8, ge=1, description="Times that the shards are made again, for a time of each pass."
    )
    num_estimation_utterances: int = Field(
        480,
        ge=1,
        description="That align estimates Gaussians on at the largest size; fewer at the others.",
    )
    num_epochs: int = Field(
        3,
        ge=2,
        description="Of each training; the first is warm-up, the median of the rest counts.",
    )
    step_sequences: tuple[int, ...] = Field(
        (4, 8, 16, 32, 64), min_length=2, description="Batches of one worker whose steps are timed."
    )
    step_frames: int = Field(100, ge=1, description="Frames of a sequence of those batches.")
    num_planned: int = Field(
        20_000, ge=1, description="Utterances that batches are drawn from, for time and memory."
    )
    num_task_runs: int = Field(100, ge=2, description="Prefect task runs that are timed.")
    use_ray: bool = Field(True, description="Train through Ray; off: one worker, in this process.")


class ScaledStages(TypedConfig):
    """What each stage does; of a recipe."""

    featurize: FeaturizeConfig = Field(description="Features and labels, of subsets that exist.")
    align: AlignConfig = Field(description="Frame targets.")
    train: TrainConfig = Field(description="The training; curriculum and epochs are the bench's.")
    evaluate: EvaluateConfig = Field(description="Decoding and scoring.")


class Measurement(TypedConfig):
    """One stage, at one size, by some workers."""

    stage: str = Field(description="Which, and what part of it.")
    hours: float = Field(description="Of audio.")
    num_workers: int = Field(description="That shared the work; 1 where the stage has no workers.")
    seconds: float = Field(description="An epoch's for training, else all of it.")
    cores: float = Field(description="Cores kept busy, by CPU time over time; 0: not measured.")
    driver_mib: float = Field(description="Peak memory of the driver's process.")
    worker_mib: float = Field(description="Peak memory of the largest worker; 0: none.")


class ReadShare(TypedConfig):
    """How much of an epoch's row groups each worker opens."""

    num_workers: int = Field(description="In the group.")
    share: float = Field(description="Mean over the workers.")


class Footprint(TypedConfig):
    """Memory and bytes that grow with the corpus, per piece."""

    entry_bytes: float = Field(description="The driver's memory per utterance of a plan.")
    part_bytes: float = Field(description="Its memory per speaker in a shard: count and moments.")
    index_bytes: float = Field(description="A worker's memory per utterance: index and plan.")
    manifest_bytes: float = Field(description="Of the manifest, per shard.")
    stored_bytes_per_hour: float = Field(description="Of the shards, aligned, per hour.")


class ScalingResult(TypedConfig):
    """Everything the benchmark found."""

    config: ScalingConfig = Field(description="What was asked.")
    stages: ScaledStages = Field(description="Of what.")
    corpus: str = Field(description="In words.")
    measurements: tuple[Measurement, ...] = Field(description="A row each.")
    steps: dict[int, float] = Field(description="Sequences of a step to its seconds.")
    num_targets: int = Field(description="Frame targets, so outputs of the network.")
    rates: Rates = Field(description="Per unit of work.")
    work: Workload = Field(description="What is projected.")
    footprint: Footprint = Field(description="Memory, bytes.")
    reads: tuple[ReadShare, ...] = Field(description="By number of workers.")
    limits: tuple[Limit, ...] = Field(description="What breaks, the first one first.")
    num_cores: int = Field(description="Of this machine, for this process.")
    num_threads: int = Field(description="Compute threads of the stages that are one process.")
    versions: dict[str, str] = Field(description="Software.")
    measured_at: str = Field(description="When, UTC.")
