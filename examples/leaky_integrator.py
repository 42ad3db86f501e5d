"""A neuron of one's own: a leaky integrator with a learned leak, whose spikes are 0 or 1.

    PYTHONPATH=examples spikeline demo --set models=leaky_integrator:MODEL,gru

trains it on synthetic speech beside a GRU, counts it and compares them. A package that declares

    [project.entry-points."spikeline.models"]
    leaky-integrator = "leaky_integrator:MODEL"

makes it known by its name alone, in recipes and forms too.
"""

from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from training.models.counting import NetworkCost, SiteCost
from training.models.model_config import ModelConfig
from training.models.registry import ModelSpec
from training.models.step_network import StepLayer, StepNetwork
from training.models.surrogate import boxcar_step


class Config(ModelConfig):
    firing_level: float = Field(0.5, gt=0, description="Potential above which a neuron fires.")


class State(NamedTuple):
    potential: Tensor
    spikes: Tensor  # the last one is what the layer sends


def step(current_BH: Tensor, leak_H: Tensor, firing_level: float, state: State) -> State:
    """``u_t = leak (u_{t-1} - s_{t-1}) + (1 - leak) I_t``; ``s_t = 1`` where u_t is above."""
    potential = leak_H * (state.potential - state.spikes) + (1.0 - leak_H) * current_BH
    return State(potential, boxcar_step(potential - firing_level))


class Layer(StepLayer):
    num_drives, state_type = 1, State

    def __init__(self, num_inputs: int, config: Config) -> None:
        super().__init__(num_inputs, config)
        self.leak_logit = nn.Parameter(torch.zeros(config.hidden_size))

    def step(self, drive_BG: Tensor, recurrent_BG: Tensor | None, state: State) -> State:
        return step(drive_BG, self.leak_logit.sigmoid(), self.config.firing_level, state)


class Network(StepNetwork):
    layer_type = Layer


# One matrix row per neuron, none back; leak (u - s) and (1 - leak) I are two products and a sum,
# u - s a sum per spike. A matrix after binary spikes adds and does not multiply.
COST = NetworkCost(1, 0, SiteCost(2, 1, event_sums=1), layer_sends="binary")
MODEL = ModelSpec("leaky", "leaky integrator", Network, lambda _: COST, Config, is_event_based=True)
