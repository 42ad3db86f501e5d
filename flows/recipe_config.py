"""What a recipe is: everything a pipeline run needs except where its corpus lies.

A recipe is data. ``--set key=value`` changes a copy of it (``flows.overrides``); the stages
below never see more than their own configuration. ``flows.recipes`` holds those with names.
"""

import itertools
from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from evaluation.config import EvaluateConfig
from featurize.corpora.synthetic import SyntheticConfig
from featurize.featurize_config import FeaturizeConfig
from featurize.stage import FanOut, TypedConfig
from flows.tracking_config import TrackingConfig
from training.align.align_config import AlignConfig
from training.models.model_config import SPIKING_MODELS, ModelConfig, ModelName
from training.train_config import TrainConfig
from training.worker_config import WorkerConfig

ALL_MODELS = ("conventional", "v1", "v2", "gru", "lstm")
"""The paper's models and its baselines."""


class SweepConfig(TypedConfig):
    """Variants of one model, one training for every combination of the values given.

    An axis without values stays as the model has it.
    """

    model: ModelName = Field("v2", description="The model that is trained in several variants.")
    num_bits: tuple[int, ...] = Field(
        (), description="Numbers of bits of a spike to try, 1 to 8 each."
    )
    thresholds: tuple[int, ...] = Field(
        (), description="Thresholds of the layers to try; higher ones give fewer spikes."
    )
    encoder_thresholds: tuple[int, ...] = Field(
        (), description="Thresholds of the input encoder to try."
    )
    density_weights: tuple[float, ...] = Field(
        (), description="Weights of the spike-density penalty to try; 0 for none."
    )

    def variants(self, config: TrainConfig) -> tuple[TrainConfig, ...]:
        """The trainings in place of one: all combinations of the axes, validated.

        Args:
            config: the training that is varied; its density targets hold for every weight.
        """
        axes: tuple[tuple[str, tuple[float, ...]], ...] = (
            ("num_bits", self.num_bits),
            ("threshold", self.thresholds),
            ("encoder_threshold", self.encoder_thresholds),
            ("density", self.density_weights),
        )
        named = [[(name, value) for value in values] for name, values in axes if values]
        return tuple(_variant(config, dict(point)) for point in itertools.product(*named))


def _variant(config: TrainConfig, point: dict[str, float]) -> TrainConfig:
    content = config.model_dump()
    weight = point.pop("density", None)
    content["model"] |= point
    if weight is not None:
        content["density"] = (content["density"] or {}) | {"weight": weight} if weight else None
    return TrainConfig.model_validate(content)


class Recipe(TypedConfig):
    """A named pipeline."""

    name: str = Field(description="Name by which the recipe is chosen.")
    explanation: str = Field(min_length=1, description="What it trains, on what, in plain words.")
    deviations: tuple[str, ...] = Field(
        (), description="Where it differs from Ponghiran & Roy, AAAI 2022, a sentence each."
    )
    featurize: FeaturizeConfig = Field(
        description="How speech and transcripts become features and labels."
    )
    align: AlignConfig | None = Field(
        None,
        description="Find frame targets from phone labels before training; empty: train on the "
        "features as they are.",
    )
    models: tuple[TrainConfig, ...] = Field(
        min_length=1, description="The models to train, with all settings of each one's training."
    )
    seeds: tuple[int, ...] = Field(
        (), description="Train once with each of these seeds; empty: once, with the model's own."
    )
    seeded_models: tuple[ModelName, ...] = Field(
        (), description="Models trained with every seed, the others with the first; empty: all."
    )
    sweep: SweepConfig | None = Field(
        None, description="Variants trained in place of one model; empty for none."
    )
    evaluate: EvaluateConfig = Field(description="How the trained models are decoded and scored.")
    synthetic: SyntheticConfig | None = Field(
        None, description="Synthesise this corpus where none is given; empty: a corpus is needed."
    )
    fan_out: FanOut = Field(
        default_factory=FanOut,
        description="Where shards are made and utterances recognised, and how many at once; "
        "never changes the result.",
    )
    workers: WorkerConfig = Field(
        default_factory=WorkerConfig,
        description="Where training runs and with how many workers; changes results by rounding "
        "alone.",
    )
    tracking: TrackingConfig = Field(
        default_factory=TrackingConfig,
        description="Where metrics go beside the results: TensorBoard or MLflow.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = self.model_names
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(
                f"models names {repeated[0]} twice; name each model once, and seeds to train it "
                "more than once"
            )
        if len(set(self.seeds)) != len(self.seeds) or any(seed < 0 for seed in self.seeds):
            raise ValueError(f"seeds={self.seeds}: use different numbers from 0")
        if self.sweep is not None:
            if self.sweep.model not in names:
                raise ValueError(f"sweep.model={self.sweep.model} is none of the recipe's models")
            self.sweep.variants(self.models[names.index(self.sweep.model)])
        return self

    @model_validator(mode="after")
    def _check_targets(self) -> Self:
        labels = self.featurize.labels
        if self.align is not None and labels != "phones":
            raise ValueError(f"align needs featurize.labels=phones, not {labels}")
        has_frame_targets = labels == "alignment" or self.align is not None
        if not has_frame_targets and "frame" in {m.objective for m in self.models}:
            raise ValueError(
                f"objective=frame needs featurize.labels=alignment, not {labels}; or labels=phones "
                "with align={}"
            )
        return self

    @property
    def model_names(self) -> tuple[str, ...]:
        """The models, in order."""
        return tuple(config.model.model for config in self.models)

    @property
    def trainings(self) -> tuple[TrainConfig, ...]:
        """Every training: the models, one of them varied, with their seeds."""
        found: list[TrainConfig] = []
        for config in self.models:
            kind = config.model.model
            swept = self.sweep is not None and self.sweep.model == kind
            variants = self.sweep.variants(config) if self.sweep and swept else (config,)
            everywhere = not self.seeded_models or kind in self.seeded_models
            seeds = self.seeds if everywhere else self.seeds[:1]
            for variant in variants:
                found += [variant.model_copy(update={"seed": seed}) for seed in seeds] or [variant]
        return tuple(found)


def trainings_of(
    models: tuple[str, ...], template: TrainConfig, spiking: Mapping[str, float] | None = None
) -> tuple[TrainConfig, ...]:
    """The same training for each model, but for what the spiking ones have of their own."""

    def model(name: str) -> ModelConfig:
        own = dict(spiking or {}) if name in SPIKING_MODELS else {}
        return template.model.for_model(name).model_copy(update=own)

    return tuple(template.model_copy(update={"model": model(name)}) for name in models)


def training_named(recipe: Recipe, name: str) -> TrainConfig:
    """The training of a model as the recipe has it, or else as it has its first model's."""
    own = [config for config in recipe.models if config.model.model == name]
    template = own[0] if own else recipe.models[0]
    return template.model_copy(update={"model": template.model.for_model(name)})
