"""adLIF and RadLIF: leaky integrate-and-fire neurons with adaptation, without and with feedback.

Bittar & Garner 2022, *A surrogate gradient spiking baseline for speech command recognition*
(Frontiers in Neuroscience 16, doi 10.3389/fnins.2022.865897), in the form of the authors' library
sparch::

    w_t = beta * w_{t-1} + a * u_{t-1} + b * s_{t-1}
    u_t = alpha * (u_{t-1} - s_{t-1}) + (1 - alpha) * (I_t - w_t)
    s_t = 1 where u_t > theta, else 0

    adLIF:   I_t = BN(W x_t)
    RadLIF:  I_t = BN(W x_t) + V s_{t-1},  no neuron connected with itself

alpha, beta, a and b are learned per neuron and kept within the authors' bounds; theta is 1. The
gradient of s is a boxcar of width 1. Deviations: the state begins at zero in place of random
numbers, and the output layer is the one that all models here have, without a leak.

A spike is 0 or 1: every matrix after it adds and does not multiply. The first layer multiplies, as
its input is features.

Shape legend: B batch, H neurons.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.models.model_config import ModelConfig
from training.models.step_network import StepLayer, StepNetwork
from training.models.surrogate import boxcar_step

SPIKE_THRESHOLD = 1.0
_BOUNDS = {
    "alpha": (math.exp(-1 / 5), math.exp(-1 / 25)),
    "beta": (math.exp(-1 / 30), math.exp(-1 / 120)),
    "a": (-1.0, 1.0),
    "b": (0.0, 2.0),
}


class AdaptiveState(NamedTuple):
    """State of one layer between frames."""

    adaptation: Tensor  # w, (B, H)
    membrane_potential: Tensor  # u, (B, H), before the reset
    spikes: Tensor  # s, (B, H), 0 or 1


class AdaptiveParameters(NamedTuple):
    """Parameters of the neurons, (H,) each, as in the module's docstring."""

    alpha: Tensor
    beta: Tensor
    a: Tensor
    b: Tensor


def adaptive_step(
    current_BH: Tensor, parameters: AdaptiveParameters, state: AdaptiveState
) -> AdaptiveState:
    """One frame; see the module's docstring.

    Args:
        current_BH: I.
    """
    alpha, beta, a, b = parameters
    adaptation, potential, spikes = state
    adaptation = beta * adaptation + a * potential + b * spikes
    potential = alpha * (potential - spikes) + (1.0 - alpha) * (current_BH - adaptation)
    return AdaptiveState(adaptation, potential, boxcar_step(potential - SPIKE_THRESHOLD))


class AdaptiveLayer(StepLayer):
    """A layer of adaptive neurons, adLIF."""

    num_drives = 1
    state_type = AdaptiveState

    def __init__(self, num_inputs: int, config: ModelConfig) -> None:
        super().__init__(num_inputs, config)
        for name, (low, high) in _BOUNDS.items():
            drawn = nn.init.uniform_(torch.empty(config.hidden_size), low, high)
            self.register_parameter(name, nn.Parameter(drawn))

    def step(
        self, drive_BG: Tensor, recurrent_BG: Tensor | None, state: AdaptiveState
    ) -> AdaptiveState:
        """``adaptive_step`` of the drive, and of the feedback where there is any."""
        current = drive_BG if recurrent_BG is None else drive_BG + recurrent_BG
        parameters = AdaptiveParameters(*map(self.get_parameter, _BOUNDS))
        return adaptive_step(current, parameters, state)

    def constrain(self) -> None:
        """Keep the neurons' parameters within the authors' bounds."""
        for name, bounds in _BOUNDS.items():
            self.get_parameter(name).clamp_(*bounds)


class RecurrentAdaptiveLayer(AdaptiveLayer):
    """A layer of adaptive neurons with feedback, RadLIF."""

    has_feedback = True

    def __init__(self, num_inputs: int, config: ModelConfig) -> None:
        super().__init__(num_inputs, config)
        self.constrain()

    @torch.no_grad()
    def constrain(self) -> None:
        """The same, and no neuron connected with itself."""
        super().constrain()
        self.recurrent_weight.fill_diagonal_(0.0)


class AdlifNetwork(StepNetwork):
    """A stack of adLIF layers."""

    layer_type = AdaptiveLayer


class RadlifNetwork(StepNetwork):
    """A stack of RadLIF layers."""

    layer_type = RecurrentAdaptiveLayer
