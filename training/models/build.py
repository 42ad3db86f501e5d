"""From a configuration to its network."""

from training.models.dense import DenseNetwork
from training.models.leaky import LeakyNetwork
from training.models.model_config import ModelConfig
from training.models.network import SpeechNetwork
from training.models.spiking import SpikingNetwork


def build_network(config: ModelConfig, num_features: int, num_outputs: int) -> SpeechNetwork:
    """Build a freshly initialised recogniser (seed torch before for a repeatable one).

    Args:
        config: which model and how large.
        num_features: values per input frame.
        num_outputs: scores per frame; symbols, plus one blank (the last) for CTC.
    """
    if config.model == "v3":
        return LeakyNetwork(config, num_features, num_outputs)
    network = SpikingNetwork if config.is_spiking else DenseNetwork
    return network(config, num_features, num_outputs)
