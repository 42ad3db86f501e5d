"""Li-GRU, the light gated recurrent unit: v2 whose outputs are not quantised.

Ravanelli, Brakel, Omologo & Bengio 2018, *Light gated recurrent units for speech recognition* (IEEE
Transactions on Emerging Topics in Computational Intelligence 2, arXiv 1803.10225)::

    z_t = sigma(BN(W_z x_t) + U_z h_{t-1})
    c_t = ReLU(BN(W_c x_t) + U_c h_{t-1})
    h_t = z_t * h_{t-1} + (1 - z_t) * c_t * m

Without quantisation v2 sends its whole potential, so that no residue is left, V = I, and the
encoder sends the features themselves: the current I is h. It runs on v2's fused recurrences. Every
output counts, zeros too, as in every dense model.
"""

from training.constants import UNQUANTIZED_BITS
from training.models.model_config import ModelConfig
from training.models.spiking import SpikingNetwork


class LiGruNetwork(SpikingNetwork):
    """A stack of Li-GRU layers.

    Args:
        config: the size; bits and thresholds do not matter.
    """

    def __init__(self, config: ModelConfig, num_features: int, num_outputs: int) -> None:
        unquantized = config.model_copy(update={"num_bits": UNQUANTIZED_BITS})
        super().__init__(unquantized, num_features, num_outputs)
