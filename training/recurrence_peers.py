"""What the recurrence benchmark measures: our networks and layers, and their peers.

A ``Step`` is one training step without the optimiser: forward, backward, all parameter
gradients. Every step of a comparison gets the same input and the same loss.

Shape legend: T time, B batch, F input features, H neurons, O outputs.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from training import recurrence
from training.lif import LifState
from training.models.build import build_network
from training.models.model_config import ModelConfig
from training.models.network import SpeechNetwork
from training.models.site import QuantizerSite
from training.models.spiking import LifLayer
from training.quantizer import RANGE_MOMENTUM, Quantizer, RangeTracker
from training.recurrence_types import Backend

Step = Callable[[], object]
SpikingName = Literal["conventional", "v1", "v2"]
TRAINED_DENSITY = 0.1
NUM_BISECTIONS = 14


class DenseSpeech(nn.Module):
    """``nn.LSTM`` or ``nn.GRU`` as they are, and a linear output: the fastest dense peer.

    It does less than a recogniser does (no batch norm, no dropout), in its own favour.
    """

    def __init__(
        self, kind: type[nn.LSTM] | type[nn.GRU], sizes: tuple[int, int, int], num_layers: int
    ):
        super().__init__()
        num_features, hidden_size, num_outputs = sizes
        self.recurrent: nn.RNNBase = kind(num_features, hidden_size, num_layers)
        self.output = nn.Linear(hidden_size, num_outputs)

    def forward(self, x_TBF: Tensor) -> Tensor:
        """Log-probabilities, (T, B, O)."""
        return torch.log_softmax(self.output(self.recurrent(x_TBF)[0]), dim=-1)


def training_step(module: nn.Module, scores: Callable[[], Tensor], targets_N: Tensor) -> Step:
    """Forward, cross-entropy against ``targets_N``, backward."""

    def step() -> None:
        module.zero_grad(set_to_none=True)
        nn.functional.nll_loss(scores().flatten(0, 1), targets_N).backward()

    return step


def on_gpu(step: Step) -> Step:
    """The step under autocast to bfloat16, until the GPU has ended it."""

    def run() -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            step()
        torch.cuda.synchronize()

    return run


def spiking_network(
    name: SpikingName, sizes: tuple[int, int, int], num_layers: int, backend: Backend
) -> SpeechNetwork:
    """Our network with the paper's quantiser and no dropout mask."""
    num_features, hidden_size, num_outputs = sizes
    config = ModelConfig(
        model=name, hidden_size=hidden_size, num_layers=num_layers, dropout=0, backend=backend
    )
    return build_network(config, num_features, num_outputs)


def set_backend(network: nn.Module, backend: Backend) -> None:
    """Make every recurrence of a spiking network run on this backend."""
    for module in network.modules():
        if isinstance(module, LifLayer):
            module.backend = backend


def _set_range(tracker: RangeTracker, range_M: float) -> None:
    """Make ``range_M()`` return this value, as if one training step had shown it."""
    tracker.num_updates.fill_(1)
    tracker.minimum.zero_()
    tracker.maximum.fill_(range_M * RANGE_MOMENTUM)


@torch.no_grad()
def spike_densities(network: SpeechNetwork, x_TBF: Tensor) -> list[float]:
    """Share of non-zero spikes of the encoder and of every layer."""
    lengths_B = torch.full((x_TBF.shape[1],), x_TBF.shape[0], device=x_TBF.device)
    spikes = network(x_TBF, lengths_B).site_outputs
    return [float((site != 0).float().mean()) for site in spikes]


def tune_densities(network: SpeechNetwork, x_TBF: Tensor, density: float) -> None:
    """Choose every site's range so that it fires with this density, from the bottom up.

    A wider range means larger levels, hence fewer of them: bisection on the range's logarithm.
    """
    spike_densities(network, x_TBF)  # the first pass in training mode sets every range
    sites = [module for module in network.modules() if isinstance(module, QuantizerSite)]
    for number, site in enumerate(sites):
        start = float(site.tracker.range_M())
        low, high = start / 64, start * 64
        for _ in range(NUM_BISECTIONS):
            middle = (low * high) ** 0.5
            _set_range(site.tracker, middle)
            if spike_densities(network, x_TBF)[number] > density:
                low = middle
            else:
                high = middle


def our_lif_step(drive_TBH: Tensor) -> Step:
    """The conventional recurrence alone, binary spikes, backward to the drive and the decay."""
    _, batch_size, num_neurons = drive_TBH.shape
    decay_H = torch.full((num_neurons,), 0.9, requires_grad=True)
    state = LifState.zeros(batch_size, num_neurons, drive_TBH.device)
    lengths_B = torch.full((batch_size,), drive_TBH.shape[0])
    quantizer = Quantizer(torch.tensor(1.0), num_bits=1, threshold=0)

    def step() -> None:
        drive_TBH.grad = decay_H.grad = None
        output = recurrence.conventional(drive_TBH, decay_H, lengths_B, state, quantizer)
        output.spikes_TBH.sum().backward()

    return step


def snntorch_lif_step(drive_TBH: Tensor) -> Step:
    """snnTorch's ``Leaky`` over the same sequence.

    Raises:
        ImportError: if snnTorch is not installed.
    """
    import snntorch

    neuron = snntorch.Leaky(beta=0.9, learn_beta=True)

    def step() -> None:
        drive_TBH.grad = None
        neuron.zero_grad(set_to_none=True)
        membrane = neuron.init_leaky()
        spikes = []
        for frame in drive_TBH:
            spike, membrane = neuron(frame, membrane)
            spikes.append(spike)
        torch.stack(spikes).sum().backward()

    return step


def spikingjelly_lif_step(drive_TBH: Tensor) -> Step:
    """SpikingJelly's multi-step ``ParametricLIFNode`` over the same sequence.

    Raises:
        ImportError: if SpikingJelly is not installed.
    """
    from spikingjelly.activation_based import functional, neuron

    node = neuron.ParametricLIFNode(step_mode="m")

    def step() -> None:
        drive_TBH.grad = None
        node.zero_grad(set_to_none=True)
        functional.reset_net(node)
        node(drive_TBH).sum().backward()

    return step
