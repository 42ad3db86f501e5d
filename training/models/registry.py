"""The models there are: built in, of an installed package, or of a module that a recipe names.

A model is found by one of

- its name, where it is built in;
- its name, where an installed package declares it as an entry point of the group
  ``spikeline.models`` (``leaky = "my_package.leaky:MODEL"``);
- ``module:attribute``, where the module can be imported (of a file, put its folder on PYTHONPATH).

and is a ``ModelSpec``. Nothing here imports torch: recipes are read without it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator

from featurize.stage import Registry

if TYPE_CHECKING:
    from training.models.counting import NetworkCost
    from training.models.model_config import ModelConfig

BUILT_IN = {
    name: f"training.models.families:{attribute}"
    for name, attribute in {
        "conventional": "CONVENTIONAL",
        "v1": "V1",
        "v2": "V2",
        "v3": "V3",
        "lstm": "LSTM",
        "gru": "GRU",
        "ligru": "LIGRU",
        "deltagru": "DELTA_GRU",
        "egru": "EGRU",
        "adlif": "ADLIF",
        "radlif": "RADLIF",
    }.items()
}
"""Address of each built-in model's ``ModelSpec``, in the order in which forms list them."""


@dataclass(frozen=True)
class ModelSpec:
    """One model: all that training and evaluation ask of it."""

    name: str  # short name, in file names, plots and tables
    title: str  # the name in a sentence
    # what builds it from (configuration, F, O), a ``training.models.network.SpeechNetwork``; or its
    # address as ``module:attribute``, where importing it takes time
    network: str | Callable[[Any, int, int], Any]
    # what the counts need to know of it, given its configuration
    cost: "Callable[[ModelConfig], NetworkCost]"
    # its configuration, ``ModelConfig`` or a subclass with fields of its own
    config: "type[ModelConfig] | None" = None
    # whether its layers send events (spikes, changes), so that outputs that are zero cost nothing
    is_event_based: bool = False
    # whether its sites fire by ``training.quantizer``, so that bits, threshold and range are
    # settings of it
    has_quantizers: bool = False
    # whether its network states its matrices (``SpeechNetwork.matrices``), so that weights can be
    # pruned or rounded
    states_matrices: bool = False
    # whether a learned map of the features can come before its first layer
    # (``ModelConfig.projection_size``)
    admits_projection: bool = False
    # address of a function from a recogniser to its event-driven scorer
    # (``evaluation.engine.scorer``); None for a model that is scored by its network
    engine: str | None = None
    # raised whenever the same configuration would train to another result; 0 at first
    version: int = 0


MODELS = Registry(ModelSpec, "model", "spikeline.models", BUILT_IN)


def known_models() -> tuple[str, ...]:
    """Names of the models that are built in or installed."""
    return MODELS.known()


def model_named(name: str) -> ModelSpec:
    """The model of a name.

    Args:
        name: as a configuration has it; see the module's docstring.
    """
    return MODELS.named(name)


def title_of(name: str) -> str:
    """A kind of model in a sentence, for a result that does not say it; else its short name."""
    return model_named(name).title if name in BUILT_IN else name


ModelName = Annotated[str, AfterValidator(MODELS.check), MODELS]
"""Name of a model, checked."""
