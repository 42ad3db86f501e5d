"""From a configuration to its network."""

from featurize.schema import StateInventory
from featurize.stage import attribute_at
from training.models.model_config import ModelConfig, as_its_model
from training.models.network import SpeechNetwork


def build_network(config: ModelConfig, num_features: int, num_outputs: int) -> SpeechNetwork:
    """Build a freshly initialised recogniser (seed torch before for a repeatable one).

    Args:
        num_outputs: scores per frame; symbols, plus one blank (the last) for CTC.

    Example:
        >>> import torch
        >>> network = build_network(ModelConfig(model="v2", hidden_size=16), 40, 29)
        >>> features_TBF, lengths_B = torch.randn(50, 2, 40), torch.tensor([50, 31])
        >>> network(features_TBF, lengths_B).log_probs_TBO.shape
        torch.Size([50, 2, 29])
    """
    network = config.spec.network
    build = attribute_at(network) if isinstance(network, str) else network
    built = build(as_its_model(config), num_features, num_outputs)
    assert isinstance(built, SpeechNetwork)
    return built


def num_outputs(num_symbols: int, objective: str, states: StateInventory | None = None) -> int:
    """Scores per frame: one per symbol and the blank for CTC, else one per frame target."""
    if objective == "ctc":
        return num_symbols + 1
    return num_symbols if states is None else len(states.phones)
