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
    """One epoch's row of ``metrics.parquet``.

    Attributes:
        train_loss: mean loss per target (CTC: per label; frame: per frame).
        dev_loss: the same on the dev split.
        dev_error: CTC: label error rate of greedy decoding; frame: frame error rate.
        frames_per_s: training frames through all workers per second.
        spike_density: share of non-zero outputs on dev, encoder first; empty for LSTM and GRU.
        num_skipped_steps: steps whose gradient was not finite, and which changed nothing.
        spikes_as_configured: whether thresholds and bits were the configured ones, so that the
            epoch may be the best.
        multiplications_per_s: audited, of a second of dev speech; empty without a budget.
        price_integral: state of the budget's controller after the epoch.
        is_affordable: whether the cost is within the budget, so that the epoch may be the best.
    """

    epoch: int
    train_loss: float
    dev_loss: float
    dev_error: float
    learning_rate: float
    frames_per_s: float
    num_frames: int
    num_utterances: int
    seconds: float
    spike_density: tuple[float, ...]
    num_skipped_steps: int = 0
    spikes_as_configured: bool = True
    multiplications_per_s: float | None = None
    price_integral: float = 0.0
    is_affordable: bool = True


class SubsetUse(TypedConfig):
    """What a training did with a subset's utterances.

    Attributes:
        num_utterances: in the feature set.
        num_used: that it learnt from, or in dev was scored on.
        left_out: the others, by reason (``UnusedReason`` of ``training.split_index``).
    """

    num_utterances: int
    num_used: int
    left_out: dict[str, int]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.num_utterances != self.num_used + sum(self.left_out.values()):
            raise ValueError("utterances used and left out are not those of the subset")
        return self


class TrainProgress(TypedConfig):
    """How far a running training is, written by rank 0 for whoever watches.

    Attributes:
        epoch: the running epoch, from 0.
        step: steps done in it.
        num_steps: steps it has.
        loss: running mean of its training loss.
        epochs: finished epochs.
    """

    epoch: int
    num_epochs: int
    step: int
    num_steps: int
    loss: float
    epochs: tuple[EpochMetrics, ...]


class TrainManifest(StageManifest):
    """The training manifest; everything a recogniser needs beside its weights.

    Attributes:
        features: address of the feature set the model was trained on.
        best_epoch: epoch (from 0) with the lowest dev error; its weights are in ``weights``.
        weights: file of the best epoch's weights, safetensors.
        weights_sha256: its checksum.
        states: what the outputs of a frame model are, where they are not the symbols.
        label_statistics: safetensors file with ``frame_counts`` of the training alignment's
            targets (absent for CTC) and ``bigram_counts`` (S + 1, S + 1) of the training label
            sequences; row S counts starts, column S ends.
        utterances: what became of those of each subset; empty in runs of earlier versions.
    """

    config: TrainConfig
    features: str
    num_features: int
    frame_shift_s: float
    labels: LabelInventory
    cmvn: CmvnStatistics
    best_epoch: int
    best_dev_error: float
    num_epochs: int
    num_parameters: int
    weights: str
    weights_sha256: str
    label_statistics: str
    label_statistics_sha256: str
    metrics: tuple[EpochMetrics, ...]
    states: StateInventory | None = None
    utterances: dict[str, SubsetUse] = Field(default_factory=dict)

    def own_names(self) -> frozenset[str]:
        """Weights, label statistics, the table of epochs, and the checkpoints that are kept."""
        return frozenset({self.weights, self.label_statistics, METRICS_NAME, CHECKPOINTS_NAME})

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.cmvn.check_num_features(self.num_features)
        return self
