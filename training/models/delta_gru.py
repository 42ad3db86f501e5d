"""DeltaGRU: a GRU that multiplies only what has changed.

Neil, Lee, Delbruck & Liu 2016, *Delta networks for optimized recurrent network computation* (arXiv
1612.05571). A value is told to the matrices after it only where it differs by more than a threshold
from the value told last, ``v^``::

    dv_t = v_t - v^_{t-1}  where |v_t - v^_{t-1}| > theta, else 0        v^_t = v^_{t-1} + dv_t

for the input x (theta_x) and every layer's output h (theta_h). Each matrix adds changes up,
``M_t = M_{t-1} + W dx_t + U dh_{t-1}`` from the folded bias, so that only changes that are not zero
cost products; in training the same sums are computed whole, ``M_t = BN(W x^_t) + U h^_{t-1}``::

    r_t = sigma(M_r)     u_t = sigma(M_u)     c_t = tanh(M_xc + r_t * M_hc)
    h_t = (1 - u_t) * h_{t-1} + u_t * c_t

The gradient is exact: a value that is not told passes none. Deviations: batch norm on the input
product; one threshold for what a layer tells itself and the layer above; the output layer, too,
reads changes.

Shape legend: T time, B batch, F input features, H neurons.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from training.models.families import DeltaGruConfig
from training.models.frames import ValidFrames
from training.models.step_network import Site, State, StepLayer, StepNetwork


class DeltaGruState(NamedTuple):
    """State of one layer between frames."""

    hidden: Tensor  # h, (B, H)
    told: Tensor  # h^, (B, H), the outputs as the matrices know them


def tell(value: Tensor, told: Tensor, threshold: float) -> Tensor:
    """v^_t: the new value where it differs from the one told last by more than the threshold."""
    return torch.where((value - told).abs() > threshold, value, told)


def delta_gru_step(
    drive_BG: Tensor, recurrent_BG: Tensor, threshold: float, state: DeltaGruState
) -> DeltaGruState:
    """One frame; see the module's docstring.

    Args:
        drive_BG: ``BN(W x^)`` of r, u and c, (B, 3H).
        recurrent_BG: ``U h^`` of the same, (B, 3H).
        threshold: theta_h.
    """
    drive_r, drive_u, drive_c = drive_BG.chunk(3, dim=1)
    back_r, back_u, back_c = recurrent_BG.chunk(3, dim=1)
    reset = torch.sigmoid(drive_r + back_r)
    update = torch.sigmoid(drive_u + back_u)
    candidate = torch.tanh(drive_c + reset * back_c)
    hidden = (1.0 - update) * state.hidden + update * candidate
    return DeltaGruState(hidden, tell(hidden, state.told, threshold))


class DeltaGruLayer(StepLayer):
    """A layer of a DeltaGRU."""

    num_drives = 3
    state_type = DeltaGruState
    has_feedback = True
    sends_changes = True

    def step(
        self, drive_BG: Tensor, recurrent_BG: Tensor | None, state: DeltaGruState
    ) -> DeltaGruState:
        """``delta_gru_step``."""
        assert recurrent_BG is not None
        assert isinstance(self.config, DeltaGruConfig)
        return delta_gru_step(drive_BG, recurrent_BG, self.config.delta_threshold, state)


class DeltaGruNetwork(StepNetwork):
    """A stack of DeltaGRU layers, whose input tells changes as well."""

    layer_type = DeltaGruLayer

    def encode(self, x_TBF: Tensor, frames: ValidFrames, before: State | None) -> Site:
        """Tell those features that changed; the state is x^."""
        assert isinstance(self.config, DeltaGruConfig)
        first = torch.zeros_like(x_TBF[:1].sum(0)) if before is None else before[0]
        told, values = first, []
        for x_BF, is_valid_B1 in zip(x_TBF.unbind(0), frames.mask_TB1.unbind(0), strict=True):
            changed = tell(x_BF, told, self.config.input_delta_threshold)
            told = changed if frames.is_full else torch.where(is_valid_B1, changed, told)
            values.append(told)
        values_TBF = torch.stack(values) if values else x_TBF
        events_TBF = torch.diff(values_TBF, dim=0, prepend=first.unsqueeze(0))
        return Site(values_TBF * frames.mask_TB1, events_TBF * frames.mask_TB1, (told,))
