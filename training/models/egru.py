"""EGRU, the event-based gated recurrent unit.

Subramoney, Nazeer, Schoene, Mayr & Kappel 2023, *Efficient recurrent architectures through activity
sparsity and sparse back-propagation through time* (ICLR, arXiv 2206.06178), in the form of the
authors' library EvNN::

    z_t = sigma(BN(W_z x_t) + U_z y_{t-1})
    r_t = sigma(BN(W_r x_t) + U_r y_{t-1})
    g_t = tanh(BN(W_g x_t) + r_t * (U_g y_{t-1}))
    c_t = z_t * h_{t-1} + (1 - z_t) * g_t
    e_t = 1 where c_t > theta, else 0      y_t = e_t * c_t      h_t = c_t - e_t * theta

An output that does not exceed its neuron's learned threshold theta is not sent. The gradient of e
is a triangle of height 0.7. Deviations: batch norm on the input product in place of its bias, and
no bias of the recurrent product, as in the spiking models here.

Shape legend: B batch, H neurons.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.models.families import EgruConfig
from training.models.model_config import ModelConfig
from training.models.step_network import StepLayer, StepNetwork
from training.models.surrogate import triangle_step

SURROGATE_HEIGHT = 0.7
_BETA = 3.0


class EgruState(NamedTuple):
    """State of one layer between frames."""

    cell: Tensor  # h, (B, H), what is left after the soft reset
    events: Tensor  # y, (B, H), what was sent


def egru_step(
    drive_BG: Tensor, recurrent_BG: Tensor, threshold_H: Tensor, state: EgruState
) -> EgruState:
    """One frame; see the module's docstring.

    Args:
        drive_BG: ``BN(W x)`` of z, r and g, (B, 3H).
        recurrent_BG: ``U y`` of the same, (B, 3H).
        threshold_H: theta.
    """
    drive_z, drive_r, drive_g = drive_BG.chunk(3, dim=1)
    back_z, back_r, back_g = recurrent_BG.chunk(3, dim=1)
    keep = torch.sigmoid(drive_z + back_z)
    reset = torch.sigmoid(drive_r + back_r)
    candidate = torch.tanh(drive_g + reset * back_g)
    cell = keep * state.cell + (1.0 - keep) * candidate
    fires = triangle_step(cell - threshold_H, SURROGATE_HEIGHT)
    return EgruState(cell - fires * threshold_H, fires * cell)


class EgruLayer(StepLayer):
    """A layer of event-based gated units.

    Args:
        config: the size, and the mean of the thresholds at first.
    """

    num_drives = 3
    state_type = EgruState
    has_feedback = True

    def __init__(self, num_inputs: int, config: ModelConfig) -> None:
        super().__init__(num_inputs, config)
        assert isinstance(config, EgruConfig)
        mean = config.event_threshold
        # On the CPU: a network may be built without storage, where nothing can be drawn.
        with torch.device("cpu"):
            beta = torch.distributions.Beta(_BETA * mean / (1.0 - mean), _BETA)
            drawn = beta.sample((config.hidden_size,))
        self.threshold = nn.Parameter(torch.empty(config.hidden_size).copy_(drawn))

    def step(self, drive_BG: Tensor, recurrent_BG: Tensor | None, state: EgruState) -> EgruState:
        """``egru_step``."""
        assert recurrent_BG is not None
        return egru_step(drive_BG, recurrent_BG, self.threshold, state)

    def constrain(self) -> None:
        """No threshold is negative, or silence would be sent."""
        self.threshold.clamp_(min=0.0)


class EgruNetwork(StepNetwork):
    """A stack of EGRU layers."""

    layer_type = EgruLayer
