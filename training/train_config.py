"""Configuration of a training: the network, and all else that determines what comes of it."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from featurize.stage import TypedConfig
from training.constants import PRUNED_BY
from training.models.model_config import AnyModelConfig, ModelConfig

# Fields of a training or its model that a model without quantisers, or without events, has no
# use for.
_OF_QUANTIZERS = (
    *("num_bits", "threshold", "encoder_threshold", "max_range", "encoder_max_range"),
    *("range_update", "quantization_schedule"),
)
_OF_EVENTS = ("density", "budget")


class CurriculumStage(TypedConfig):
    """A number of epochs on sequences of at most a given length."""

    num_epochs: int = Field(ge=1, description="Passes over the training speech in this stage.")
    chunk_frames: int | None = Field(
        None,
        ge=1,
        description="Frame targets: utterances are cut into chunks of this many frames. CTC: "
        "longer utterances wait for a later stage. Empty: whole utterances.",
    )


class OptimizerConfig(TypedConfig):
    """Adam and the learning-rate rule."""

    learning_rate: float = Field(
        1e-3, gt=0, description="Learning rate of Adam at the start; the rule lowers it."
    )
    min_learning_rate: float = Field(
        1.25e-4, gt=0, description="Lowest learning rate that the rule goes down to."
    )
    rule: Literal["halve", "cosine"] = Field(
        "halve",
        description="Halve the learning rate where the dev error stops improving, or let it fall "
        "from its initial value to the floor along half a cosine, step by step.",
    )
    warmup_epochs: int = Field(
        0, ge=0, description="Epochs over which the learning rate climbs to its initial value."
    )
    halve_below_improvement: float = Field(
        0.0,
        ge=0,
        description="Halve the learning rate after an epoch whose dev error improved by less "
        "than this share.",
    )
    constant_epochs: int = Field(
        0, ge=0, description="Epochs before the rule applies (CTC begins on a plateau)."
    )
    weight_decay: float = Field(
        0.0,
        ge=0,
        description="Decoupled weight decay (AdamW): the share, times the learning rate, that "
        "each step takes off the weights; 0 for none.",
    )
    max_gradient_norm: float | None = Field(
        None, gt=0, description="Clip the gradient's global norm to this; empty for no clipping."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate={self.min_learning_rate} exceeds "
                f"learning_rate={self.learning_rate}; lower the floor"
            )
        return self


class SpecAugmentConfig(TypedConfig):
    """Masks over time and frequency (Park et al. 2019), on normalised features."""

    num_time_masks: int = Field(2, ge=0, description="Stretches of time masked in each utterance.")
    max_time_share: float = Field(
        0.05, ge=0, le=1, description="Longest time mask, as a share of the utterance."
    )
    num_feature_masks: int = Field(
        2, ge=0, description="Bands of features masked in each utterance."
    )
    max_feature_share: float = Field(
        0.2, ge=0, le=1, description="Widest feature mask, as a share of the features."
    )


class QuantizationScheduleConfig(TypedConfig):
    """How the quantisers of a spiking model come into play; dense models have none.

    The best epoch is chosen among those in which the network spikes as configured.
    """

    unquantized_epochs: int = Field(
        0,
        ge=0,
        description="First epochs without quantisation, in which ranges already follow the "
        "potentials.",
    )
    threshold_epochs: int = Field(
        0,
        ge=0,
        description="Epochs after those, over which the thresholds climb from 0 in equal steps.",
    )
    num_range_updates: int | None = Field(
        None,
        ge=1,
        description="Updates after which a range stays: one before the first step, one after "
        "each step. A range that follows what fires can run away with it. Empty: it always moves.",
    )

    @property
    def num_epochs(self) -> int:
        """Epochs until the network spikes as configured."""
        return self.unquantized_epochs + self.threshold_epochs

    def threshold_share(self, epoch: int) -> float:
        """Share of the configured thresholds that holds in an epoch, counted from 0."""
        if epoch >= self.num_epochs:
            return 1.0
        return max(0, epoch - self.unquantized_epochs) / max(1, self.threshold_epochs)


class DensityConfig(TypedConfig):
    """A penalty on the spikes of the layers (``training.density``); dense models have none."""

    weight: float = Field(
        gt=0, description="Weight of the penalty beside the objective's mean per target."
    )
    targets: tuple[float, ...] = Field(
        (0.1,),
        min_length=1,
        description="Share of a layer's outputs that may fire unpenalised: one for all layers, or "
        "one each.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not all(0 <= target < 1 for target in self.targets):
            raise ValueError(f"targets={self.targets}: a density lies between 0 and 1")
        return self

    def layer_targets(self, num_layers: int) -> tuple[float, ...]:
        """A target for each layer."""
        return self.targets * num_layers if len(self.targets) == 1 else self.targets


class BudgetConfig(TypedConfig):
    """A price on all multiplications that leads to a budget (``training.budget``)."""

    multiplications_per_s: float = Field(
        gt=0,
        description="Audited multiplications for a second of speech that the trained model shall "
        "need at most: encoder, layers, output and projection.",
    )
    first_epoch: int = Field(
        2,
        ge=0,
        description="Epochs of training before the price begins, so that the network has learnt "
        "what is worth its cost; 0 aims at the budget from the first step on, which a network "
        "needs whose dense spikes drive one another out of range.",
    )
    approach_epochs: float = Field(
        2.0,
        gt=0,
        description="Epochs over which the aim falls from the network's cost to the budget.",
    )
    integral_gain: float = Field(
        0.01,
        gt=0,
        description="Growth of the price with every step, for each factor e above the aim.",
    )
    proportional_gain: float = Field(
        2.0, ge=0, description="Part of the price that follows the present step's excess at once."
    )
    tolerance: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Share by which an epoch may exceed the budget on dev and still be the best.",
    )


class DistillationConfig(TypedConfig):
    """A trained recogniser to learn from beside the targets (``training.distillation``)."""

    teacher: str = Field(
        min_length=1,
        pattern=r"^[0-9a-f]+$",
        description="Fingerprint of a finished training below the same root, on the same targets "
        "and with the same delay.",
    )
    weight: float = Field(
        0.5, gt=0, le=1, description="Share of the objective that is the distance to the teacher."
    )
    temperature: float = Field(
        1.0, gt=0, description="Softens both distributions; above 1 small scores count more."
    )


class WeightAveragingConfig(TypedConfig):
    """Score and keep an exponential moving average of the weights instead of the weights."""

    decay: float = Field(
        0.99, gt=0, lt=1, description="Share of the average that each training step keeps."
    )


class TrainConfig(TypedConfig):
    """Everything that determines a trained recogniser, besides its features."""

    model: AnyModelConfig = Field(
        default_factory=ModelConfig,
        description="The network: its recurrence, its size and how it spikes.",
    )
    objective: Literal["ctc", "frame"] = Field(
        "ctc",
        description="What is trained for: the label sequence of an utterance (CTC), or the "
        "label of every frame, which needs aligned features.",
    )
    curriculum: tuple[CurriculumStage, ...] = Field(
        (CurriculumStage(num_epochs=10),),
        min_length=1,
        description="Stages of the training in order, each a number of epochs on sequences of "
        "at most a given length.",
    )
    batch_size: int = Field(64, ge=1, description="Sequences per step over all workers together.")
    accumulate: int | None = Field(
        None,
        ge=2,
        description="Parts of a batch that are computed one after the other before a step, their "
        "gradients added up: a larger batch in the same memory. Batch normalisation sees a part "
        "at a time. Empty: the whole batch at once.",
    )
    optimizer: OptimizerConfig = Field(
        default_factory=OptimizerConfig, description="Adam and the learning-rate rule."
    )
    spec_augment: SpecAugmentConfig | None = Field(
        None,
        description="Feature masking in training (SpecAugment), against overfitting; empty for "
        "none.",
    )
    quantization_schedule: QuantizationScheduleConfig | None = Field(
        None, description="How quantisation comes into play; empty for all of it from the start."
    )
    density: DensityConfig | None = Field(
        None,
        description="Penalty on the number of spikes, which makes a spiking model cheaper; "
        "empty for none.",
    )
    budget: BudgetConfig | None = Field(
        None,
        description="Multiplications that a spiking model shall need at most, and how training "
        "leads there; empty for no budget.",
    )
    distillation: DistillationConfig | None = Field(
        None,
        description="Frame targets: a trained recogniser to learn from beside the targets; empty "
        "for none.",
    )
    weight_averaging: WeightAveragingConfig | None = Field(
        None, description="Average of the weights over training steps; empty for none."
    )
    target_delay: int | None = Field(
        None,
        ge=1,
        description="Frame targets: frames that the network hears on after the one it names, so "
        "that it need not know a phone before it has sounded; an utterance's last frames remain "
        "unnamed. Empty: none.",
    )
    shuffle_window_rows: int = Field(
        4096,
        ge=1,
        description="Utterances mixed with one another when batches are drawn; "
        "bounds the feature memory of a worker.",
    )
    seed: int = Field(0, ge=0, description="Seed of initialisation, batches, dropout and masks.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        schedule, num_epochs = self.quantization_schedule, self.num_epochs
        if schedule is not None and schedule.num_epochs >= num_epochs:
            raise ValueError(
                f"quantization_schedule takes {schedule.num_epochs} epochs of {num_epochs} and "
                "leaves none to spike as configured; shorten it or train longer"
            )
        if self.optimizer.warmup_epochs >= num_epochs:
            raise ValueError(
                f"optimizer.warmup_epochs={self.optimizer.warmup_epochs} of {num_epochs} epochs: "
                "shorten it or train longer"
            )
        if self.accumulate is not None and self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate={self.accumulate} parts of a batch of {self.batch_size} sequences; "
                "use fewer"
            )
        self._check_delay()
        self._check_budget()
        if self.distillation is not None and self.objective != "frame":
            raise ValueError("distillation is for objective=frame; leave it empty")
        num_targets = len(self.density.targets) if self.density is not None else 1
        if num_targets not in (1, self.model.num_layers):
            raise ValueError(
                f"density.targets has {num_targets} values for {self.model.num_layers} layers; "
                "give one, or one each"
            )
        return self

    def _check_budget(self) -> None:
        if self.budget is None:
            return
        schedule, first = self.quantization_schedule, self.budget.first_epoch
        if self.density is not None:
            raise ValueError("budget and density both penalise spikes; leave one of them empty")
        if schedule is not None and first < schedule.num_epochs:
            raise ValueError(
                f"budget.first_epoch={first} comes before epoch {schedule.num_epochs}, from which "
                "on the network spikes as configured; begin there or later"
            )
        if first and first + self.budget.approach_epochs > self.num_epochs:
            raise ValueError(
                f"budget: first_epoch={first} and approach_epochs={self.budget.approach_epochs:g} "
                f"reach beyond the {self.num_epochs} epochs of the curriculum; train longer"
            )

    def _check_delay(self) -> None:
        delay = self.target_delay
        if delay is None:
            return
        if self.objective != "frame":
            raise ValueError(
                f"target_delay={delay} is for objective=frame; CTC finds its own delay, leave it "
                "empty"
            )
        for stage in self.curriculum:
            if stage.chunk_frames is not None and stage.chunk_frames <= delay:
                raise ValueError(
                    f"target_delay={delay} leaves no target in chunks of {stage.chunk_frames} "
                    "frames; use a smaller delay or longer chunks"
                )

    def determining(self) -> dict[str, Any]:
        """As for any configuration, less how spikes are made and penalised where a model has none.

        A model's own version is named where it has one.
        """
        content = super().determining()
        left_out = (
            *(() if self.model.has_quantizers else _OF_QUANTIZERS),
            *(() if self.model.is_event_based else _OF_EVENTS),
        )
        for name in left_out:
            content.pop(name, None)
            content["model"].pop(name, None)
        if self.model.spec.version:
            content["model"]["version"] = self.model.spec.version
        return content

    def is_as_configured(self, epoch: int) -> bool:
        """Whether in an epoch, counted from 0, the network becomes what is configured.

        Thresholds and bits are those of the configuration, and as few weights are left as it says.
        """
        schedule, density = self.quantization_schedule, self.model.weight_density
        if density is not None and epoch + 1 < PRUNED_BY * self.num_epochs:
            return False
        return schedule is None or not self.model.has_quantizers or epoch >= schedule.num_epochs

    @property
    def num_epochs(self) -> int:
        """Epochs of all curriculum stages."""
        return sum(stage.num_epochs for stage in self.curriculum)

    def chunk_frames(self, epoch: int) -> int | None:
        """The curriculum's sequence length in an epoch, counted from 0."""
        for stage in self.curriculum:
            if epoch < stage.num_epochs:
                return stage.chunk_frames
            epoch -= stage.num_epochs
        raise AssertionError("epoch beyond the curriculum")
