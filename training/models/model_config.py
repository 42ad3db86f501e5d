"""Configuration of a network: which one, how large, and how it spikes."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, SerializeAsAny, model_validator

from featurize.stage import InFingerprint, TypedConfig
from training.constants import UNQUANTIZED_BITS, Backend
from training.models.leaky_config import LeakyConfig
from training.models.registry import ModelName as ModelName
from training.models.registry import ModelSpec, model_named

SPIKING_MODELS = ("conventional", "v1", "v2", "v3")
"""The paper's spiking models, and ours."""


def _admit_fields_of_models(schema: dict[str, Any]) -> None:
    """Forms are checked by this schema alone, which knows no model's own fields."""
    schema.pop("additionalProperties", None)


class ModelConfig(TypedConfig):
    """One recogniser: a recurrent network between feature frames and symbol scores.

    A model with settings of its own has a subclass with them (``ModelSpec.config``).
    """

    model_config = ConfigDict(json_schema_extra=_admit_fields_of_models)

    model: ModelName = Field(
        "v2",
        description="Recurrence: a built-in or installed model, or module:attribute for one of "
        "your own.",
    )
    num_layers: int = Field(
        2,
        ge=1,
        le=16,
        description="Recurrent layers between the input encoder and the output (2 in the paper).",
    )
    hidden_size: int = Field(
        550,
        ge=1,
        le=8192,
        description="Neurons per recurrent layer (550 in the paper); training time grows with "
        "its square.",
    )
    dropout: float = Field(
        0.2, ge=0, lt=1, description="Dropout of the cell drive, one mask per layer and sequence."
    )
    num_bits: int = Field(
        6, description="Bits of a spike, sign included: 1 to 8, or 32 for no quantisation."
    )
    threshold: int = Field(
        3,
        ge=0,
        description="Spike levels of magnitude up to this are silent; a higher threshold gives "
        "fewer spikes, and more errors.",
    )
    encoder_threshold: int | None = Field(
        None,
        ge=0,
        description="The same for the input encoder, which no weight can make sparser; empty for "
        "the layers' threshold.",
    )
    max_range: float | None = Field(
        None,
        gt=0,
        description="Bound of the ranges of the layers. A range that follows what fires can run "
        "away with it, through the recurrence, until the threshold is out of reach; drives are "
        "normalised and of order 1. Empty for none, as in the paper.",
    )
    encoder_max_range: float | None = Field(
        None,
        gt=0,
        description="The same for the input encoder, in deviations of the normalised features: "
        "what does not fire is kept, so that its range can run away as well.",
    )
    range_update: Literal["step", "timestep"] = Field(
        "step",
        description="When the quantiser's range moves: once per training step, or at every time "
        "step as the authors' code does (slow, for comparison).",
    )
    v3: LeakyConfig | None = Field(
        None, description="Options of v3; empty for their defaults, and for other models."
    )
    projection_size: int | None = Field(
        None,
        ge=1,
        le=8192,
        description="Spiking models and Li-GRU: a learned linear map of the features to so many "
        "values before the input encoder, whose products count; empty for none.",
    )
    weight_density: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of the weights of each matrix that training keeps, by magnitude; those "
        "that are pruned multiply nothing. Empty: all.",
    )
    backend: Annotated[Backend, InFingerprint.NEVER] = Field(
        "auto",
        description="Implementation of the recurrence: auto takes the fastest that the machine "
        "has; never changes the result beyond rounding.",
    )
    recompute_frames: Annotated[int | None, InFingerprint.NEVER] = Field(
        None,
        ge=1,
        description="Spiking models: run the recurrence again in the backward pass, this many "
        "frames at a time, rather than keep gates and currents; for long sequences. Empty: keep "
        "them.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (1 <= self.num_bits <= 8 or self.num_bits == UNQUANTIZED_BITS):
            raise ValueError(f"num_bits={self.num_bits}: use 1 to 8, or 32 for no quantisation")
        self._check_thresholds()
        self._check_v3()
        if self.projection_size is not None and not self.spec.admits_projection:
            raise ValueError(
                f"projection_size={self.projection_size}: {self.model} admits no projection of the "
                "features; leave it empty, or use a spiking model or ligru"
            )
        if self.weight_density is not None and not self.spec.states_matrices:
            raise ValueError(
                f"weight_density: {self.model} does not state its matrices; leave it empty"
            )
        if self.range_update == "timestep" and self.backend not in ("auto", "reference"):
            raise ValueError(f"range_update=timestep needs backend=reference, not {self.backend}")
        if self.recompute_frames is not None and self.range_update == "timestep":
            raise ValueError(
                "recompute_frames runs a sequence twice, and range_update=timestep moves the range "
                "each time; use range_update=step, or leave recompute_frames empty"
            )
        return self

    def _check_thresholds(self) -> None:
        top_level = max(1, 2 ** (self.num_bits - 1) - 1)
        sites = (("threshold", self.threshold), ("encoder_threshold", self.encoder_threshold))
        for name, threshold in sites:
            if self.num_bits != UNQUANTIZED_BITS and (threshold or 0) >= top_level:
                raise ValueError(
                    f"{name}={threshold} silences every spike of {self.num_bits} bits "
                    f"(levels reach {top_level}); use a smaller threshold or more bits"
                )

    def _check_v3(self) -> None:
        if self.model != "v3":
            if self.v3 is not None:
                raise ValueError(f"v3 is for model=v3, not {self.model}; leave it empty")
            return
        if self.num_bits == 1:
            raise ValueError("num_bits=1: v3 has two bits or more, or 32 for no quantisation")
        for name, off in (("range_update", "step"), ("recompute_frames", None)):
            if getattr(self, name) != off:
                raise ValueError(f"{name}={getattr(self, name)}: v3 has none; leave it at {off}")

    @property
    def leaky(self) -> LeakyConfig:
        """The options of v3, given or default."""
        return self.v3 or LeakyConfig()

    @property
    def spec(self) -> ModelSpec:
        """The model's entry in the registry."""
        return model_named(self.model)

    @property
    def is_event_based(self) -> bool:
        """Whether layers send events, so that outputs that are zero cost nothing."""
        return self.spec.is_event_based

    @property
    def has_quantizers(self) -> bool:
        """Whether sites fire by quantisers, so that bits, thresholds and ranges matter."""
        return self.spec.has_quantizers

    @property
    def sends_ones(self) -> bool:
        """Whether layers send spikes that are 0 or 1; a quantiser's single bit has a size."""
        return not self.has_quantizers and self.spec.cost(self).layer_sends == "binary"

    def for_model(self, name: str) -> "ModelConfig":
        """The configuration of another model with all of this one's settings that it has."""
        spec = model_named(name)
        kind = spec.config or ModelConfig
        has = {"v3": name == "v3", "projection_size": spec.admits_projection}
        lacking = {field for field, is_there in has.items() if not is_there}
        shared = {k: v for k, v in self if k in kind.model_fields and k not in lacking}
        return kind.model_validate(shared | {"model": name})


def as_its_model(value: Any) -> Any:
    """A configuration as the class that its model declares."""
    if isinstance(value, ModelConfig):
        kind = value.spec.config or ModelConfig
        return value if isinstance(value, kind) else value.for_model(value.model)
    if isinstance(value, dict) and isinstance(name := value.get("model", "v2"), str):
        return (model_named(name).config or ModelConfig).model_validate(value)
    return value


AnyModelConfig = Annotated[SerializeAsAny[ModelConfig], BeforeValidator(as_its_model)]
"""The configuration of whichever model it names."""
