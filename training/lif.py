"""The leaky integrate-and-fire recurrence, one step at a time, without parameters of its own.

These functions define the model (DESIGN section 3; Ponghiran & Roy 2022, arXiv 2109.01905);
everything fast is tested against them.

Symbols: ``I`` synaptic current, ``V`` membrane potential before firing, ``R`` residue after
it, ``Y`` multi-bit spikes. Firing is the same everywhere, a soft reset without membrane leak::

    V_t = R_{t-1} + drive_t        Y_t = Q(V_t)        R_t = V_t - Y_t

Shape legend: B batch, H neurons.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from training.quantizer import Quantizer, fire

SATURATION = 1e30
"""Largest magnitude of a current, a cell's drive or a potential: no overflow, hence no NaN."""


def saturate(value: Tensor) -> Tensor:
    """Keep ``value`` within ``SATURATION``; no ordinary value comes near it."""
    return torch.clamp(value, -SATURATION, SATURATION)


class LifState(NamedTuple):
    """State of one layer between time steps.

    Attributes:
        synaptic_current: I, (B, H) float32; unused by the encoder.
        residue: R, membrane potential left after firing, (B, H) float32.
        spikes: Y, last output, (B, H) float32; what a recurrent layer feeds back.
    """

    synaptic_current: Tensor
    residue: Tensor
    spikes: Tensor

    @classmethod
    def zeros(cls, batch_size: int, num_neurons: int, device: torch.device) -> "LifState":
        """The state before the first frame."""
        zero = torch.zeros(batch_size, num_neurons, device=device)
        return cls(zero, zero, zero)


class StepOutput(NamedTuple):
    """One step's result.

    Attributes:
        state: the state after the step; ``state.spikes`` is the output.
        membrane_potential: V before firing, (B, H), for the quantiser's range.
    """

    state: LifState
    membrane_potential: Tensor


def fire_step(
    drive: Tensor, synaptic_current: Tensor, residue: Tensor, quantizer: Quantizer
) -> StepOutput:
    """Integrate, fire and soft-reset: ``V = R + drive; Y = Q(V); R = V - Y``.

    Args:
        drive: what flows into the membrane this step, (B, H).
        synaptic_current: carried through into the new state, (B, H).
        residue: R of the step before, (B, H).
        quantizer: the site's quantiser.
    """
    potential = saturate(residue + drive)
    spikes = fire(potential, quantizer)
    return StepOutput(LifState(synaptic_current, potential - spikes, spikes), potential)


def encoder_step(x: Tensor, state: LifState, quantizer: Quantizer) -> StepOutput:
    """Encode one input frame as spikes: ``drive = x_t``. ``x`` is (B, F)."""
    return fire_step(x, state.synaptic_current, state.residue, quantizer)


def conventional_step(
    drive: Tensor, decay: Tensor, state: LifState, quantizer: Quantizer
) -> StepOutput:
    """The conventional LIF layer: ``I_t = drive_t + tau I_{t-1}``.

    Args:
        drive: ``m * BN(W X_t)``, (B, H).
        decay: tau per neuron, (H,), in [0, 1].
        state: the state of the step before.
        quantizer: the layer's quantiser.
    """
    current = saturate(drive + decay * state.synaptic_current)
    return fire_step(current, current, state.residue, quantizer)


def gated_step(
    forget_drive: Tensor,
    cell_drive: Tensor,
    dropout_mask: Tensor | None,
    recurrent_weight: Tensor | None,
    state: LifState,
    quantizer: Quantizer,
) -> StepOutput:
    """The improved LIF layers v1 (without) and v2 (with a recurrent weight)::

        F_t = sigma(forget_drive_t + U_f Y_{t-1})
        C_t = ReLU(cell_drive_t + U_c Y_{t-1})
        I_t = F_t * I_{t-1} + (1 - F_t) * C_t * m

    Args:
        forget_drive: ``BN(W_f X_t)``, (B, H).
        cell_drive: ``BN(W_c X_t)``, (B, H).
        dropout_mask: m, (B, H), already scaled by 1 / keep; None for no dropout.
        recurrent_weight: ``[U_f; U_c]`` stacked, (2H, H), or None for v1.
        state: the state of the step before.
        quantizer: the layer's quantiser.
    """
    if recurrent_weight is not None:
        recurrent = state.spikes @ recurrent_weight.T
        from_forget, from_cell = recurrent.chunk(2, dim=-1)
        forget_drive = forget_drive + from_forget
        cell_drive = cell_drive + from_cell
    forget = torch.sigmoid(forget_drive)
    cell = saturate(torch.relu(cell_drive))
    if dropout_mask is not None:
        cell = cell * dropout_mask
    current = saturate(forget * state.synaptic_current + (1.0 - forget) * cell)
    return fire_step(current, current, state.residue, quantizer)
