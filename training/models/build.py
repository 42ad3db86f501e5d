"""From a configuration to its network."""

from training.models.model_config import ModelConfig, as_its_model
from training.models.network import SpeechNetwork
from training.models.registry import attribute_at


def build_network(config: ModelConfig, num_features: int, num_outputs: int) -> SpeechNetwork:
    """Build a freshly initialised recogniser (seed torch before for a repeatable one).

    Args:
        config: which model and how large.
        num_features: values per input frame.
        num_outputs: scores per frame; symbols, plus one blank (the last) for CTC.
    """
    network = config.spec.network
    build = attribute_at(network) if isinstance(network, str) else network
    built = build(as_its_model(config), num_features, num_outputs)
    assert isinstance(built, SpeechNetwork)
    return built
