"""An exponential moving average of a network's weights (Polyak averaging).

Statistics of batch norm and ranges of quantisers are averages already, over about the same number
of steps; the averaged network has the network's own.
"""

from collections.abc import Mapping

from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.models.network import SpeechNetwork
from training.train_config import WeightAveragingConfig

_PREFIX = "module."


class AverageNetwork(AveragedModel):
    """The average beside the network that is trained."""

    module: SpeechNetwork


def averaged(network: SpeechNetwork, config: WeightAveragingConfig) -> AverageNetwork:
    """An average that begins as a copy of the network.

    After every optimiser step call ``update_parameters(network)``.
    """
    average_fn = get_ema_multi_avg_fn(config.decay)
    return AverageNetwork(network, multi_avg_fn=average_fn)


def network_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From the state of an average, the averaged network's under the network's own names."""
    return {
        name.removeprefix(_PREFIX): value
        for name, value in state.items()
        if name.startswith(_PREFIX)
    }
