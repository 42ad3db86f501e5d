"""What a finished training run says of itself."""

from typing import Self

from pydantic import Field, model_validator

from featurize.schema import CmvnStatistics, LabelInventory, StateInventory
from featurize.stage import StageManifest, TypedConfig
from training.train_config import TrainConfig

TRAIN_SCHEMA_VERSION = 1
METRICS_NAME = "metrics.parquet"
CHECKPOINTS_NAME = "checkpoints"


class EpochMetrics(TypedConfig):
    """One epoch's row of ``metrics.parquet``."""

    epoch: int
    train_loss: float  # mean loss per target (CTC: per label; frame: per frame)
    dev_loss: float  # the same on the dev split
    dev_error: float  # CTC: label error rate of greedy decoding; frame: frame error rate
    learning_rate: float
    frames_per_s: float  # training frames through all workers per second
    num_frames: int
    num_utterances: int
    seconds: float
    # share of non-zero outputs on dev, encoder first; empty for LSTM and GRU
    spike_density: tuple[float, ...]
    num_skipped_steps: int = 0  # whose gradient was not finite, and which changed no weight
    # whether thresholds and bits were the configured ones, so that the epoch may be the best
    spikes_as_configured: bool = True  # the share of its weights that is kept, too
    # audited, of a second of dev speech; empty without a budget
    multiplications_per_s: float | None = None
    price_integral: float = 0.0  # state of the budget's controller after the epoch
    # that cost over what a second of speech cost in the last steps of the epoch's training
    budget_excess: float = 1.0
    # whether the cost is within the budget, so that the epoch may be the best
    is_affordable: bool = True


class SubsetUse(TypedConfig):
    """What a training did with a subset's utterances."""

    num_utterances: int  # in the feature set
    num_used: int  # that it learnt from, or in dev was scored on
    left_out: dict[str, int]  # the others, by reason (``UnusedReason`` of ``training.split_index``)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.num_utterances != self.num_used + sum(self.left_out.values()):
            raise ValueError("utterances used and left out are not those of the subset")
        return self


class TrainProgress(TypedConfig):
    """How far a running training is, written by rank 0 for those who show it."""

    epoch: int  # the running epoch, from 0
    num_epochs: int
    step: int  # steps done in it
    num_steps: int  # steps it has
    loss: float  # running mean of its training loss
    epochs: tuple[EpochMetrics, ...]  # finished epochs


class TrainManifest(StageManifest):
    """The training manifest; everything a recogniser needs beside its weights."""

    config: TrainConfig
    features: str  # address of the feature set the model was trained on
    num_features: int
    frame_shift_s: float
    labels: LabelInventory
    cmvn: CmvnStatistics
    best_epoch: int  # epoch (from 0) with the lowest dev error; its weights are in ``weights``
    best_dev_error: float
    num_epochs: int
    num_parameters: int
    weights: str  # file of the best epoch's weights, safetensors
    weights_sha256: str
    # safetensors file with ``frame_counts`` of the training alignment's targets (absent for CTC)
    # and ``bigram_counts`` (S + 1, S + 1) of the training label sequences; row S counts starts,
    # column S ends
    label_statistics: str
    label_statistics_sha256: str
    metrics: tuple[EpochMetrics, ...]
    # what the outputs of a frame model are, where they are not the symbols
    states: StateInventory | None = None
    # what became of those of each subset; empty in runs of earlier versions
    utterances: dict[str, SubsetUse] = Field(default_factory=dict)

    def own_names(self) -> frozenset[str]:
        """Weights, label statistics, the table of epochs, and the checkpoints that are kept."""
        return frozenset({self.weights, self.label_statistics, METRICS_NAME, CHECKPOINTS_NAME})

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.cmvn.check_num_features(self.num_features)
        return self
