"""The leaky integrate-and-fire recurrence, one step at a time, without parameters of its own.

These functions define the model (Ponghiran & Roy 2022, arXiv 2109.01905);
everything fast is tested against them.

Symbols: ``I`` synaptic current, ``V`` membrane potential before firing, ``R`` residue after
it, ``Y`` multi-bit spikes. Firing is the same everywhere, a soft reset without membrane leak::

    V_t = R_{t-1} + drive_t        Y_t = Q(V_t)        R_t = V_t - Y_t

v3 (ours) is v2 with two changes, each of which can be left off; with both off it is v2. M is the
range of the site, lambda is in (0, 1]::

    R_t = lambda (V_t - Y_t)          residue leak
    Y_t = Q(V_t)                      learned range M and threshold

Why. In a trained v2 residues reach 1000 times the range, because nothing leaks, and 37% of the
spikes fire while the current is below the threshold: late residue. The leak makes old residue
fade: what is left of it after n silent frames is lambda^n, so that a current too weak to reach the
threshold by itself, at I < (1 - lambda) threshold, never fires. Learned range and threshold are
absolute: a range that follows what fires grows with the network's own weights. A bound of the cell
within the range, levels without a sign and a leak for each neuron were tried and dropped
(``evaluation/results/v3-options.md``).

Gradient, for fused implementations. With g_t what arrives at Y_t from outside and through U (as in
v2), r_t what arrives at R_t from frame t + 1 (it is the gradient of V_{t+1}, as V = R + drive) and
1_t whether V_t lies inside the clip::

    gradient of Y_t:  y_t = g_t - lambda r_t
    gradient of V_t:  v_t = 1_t y_t + lambda r_t = 1_t g_t + (1 - 1_t) lambda r_t
    lambda += r_t (V_t - Y_t)     M += y_t dY_t/dM     tau += y_t dY_t/dtau

with the derivatives of Q in ``training.quantizer``. Inside the clip v_t = g_t, as in v2: gradient
flows through time along the current alone; r_t is needed for lambda, M and tau.

Shape legend: T time, B batch, H neurons.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from training.constants import SATURATION
from training.quantizer import Quantizer, fire


def saturate(value: Tensor) -> Tensor:
    """Keep ``value`` within ``SATURATION``; no ordinary value comes near it."""
    return torch.clamp(value, -SATURATION, SATURATION)


class LifState(NamedTuple):
    """State of one layer between time steps."""

    synaptic_current: Tensor  # I, (B, H) float32; unused by the encoder
    residue: Tensor  # R, membrane potential left after firing, (B, H) float32
    spikes: Tensor  # Y, last output, (B, H) float32; what a recurrent layer feeds back

    @classmethod
    def zeros(cls, batch_size: int, num_neurons: int, device: torch.device) -> "LifState":
        """The state before the first frame."""
        zero = torch.zeros(batch_size, num_neurons, device=device)
        return cls(zero, zero, zero)


class StepOutput(NamedTuple):
    """One step's result."""

    state: LifState  # the state after the step; ``state.spikes`` is the output
    membrane_potential: Tensor  # V before firing, (B, H), for the quantiser's range


class RecurrenceOutput(NamedTuple):
    """All steps of a sequence."""

    spikes_TBH: Tensor  # Y, zero at padding frames
    state: LifState  # the state after each utterance's last valid frame
    minimum: Tensor  # smallest valid membrane potential, scalar without gradient; +inf if no frame
    maximum: Tensor  # largest valid membrane potential, scalar without gradient; -inf if no frame


class FiringRule(NamedTuple):
    """How a site fires; of the paper's models a quantiser alone."""

    quantizer: Quantizer  # Q, with or without gradients for range and threshold
    residue_leak: Tensor | None = None  # lambda, (H,) float32 in (0, 1]; None for no leak, as 1


def fire_step(
    drive: Tensor, synaptic_current: Tensor, residue: Tensor, firing: FiringRule
) -> StepOutput:
    """Integrate, fire, soft-reset and leak: ``V = R + drive; Y = Q(V); R = lambda (V - Y)``.

    Args:
        drive: what flows into the membrane this step, (B, H).
        synaptic_current: carried through into the new state, (B, H).
        residue: R of the step before, (B, H).
        firing: the site's quantiser and leak.
    """
    potential = saturate(residue + drive)
    spikes = fire(potential, firing.quantizer)
    left = potential - spikes
    if firing.residue_leak is not None:
        left = firing.residue_leak * left
    return StepOutput(LifState(synaptic_current, left, spikes), potential)


def encoder_step(x: Tensor, state: LifState, firing: FiringRule) -> StepOutput:
    """Encode one input frame as spikes: ``drive = x_t``, (B, F)."""
    return fire_step(x, state.synaptic_current, state.residue, firing)


def conventional_step(
    drive: Tensor, decay: Tensor, state: LifState, firing: FiringRule
) -> StepOutput:
    """The conventional LIF layer: ``I_t = drive_t + tau I_{t-1}``.

    Args:
        drive: ``m * BN(W X_t)``, (B, H).
        decay: tau per neuron, (H,), in [0, 1].
        state: the state of the step before.
        firing: how the layer fires.

    Example:
        One neuron whose current halves each frame, driven in the first: it fires twice and keeps
        what a level does not hold.

        >>> from training.quantizer import paper_quantizer
        >>> firing = FiringRule(paper_quantizer(torch.tensor(4.0), num_bits=3, threshold=1))
        >>> state = LifState.zeros(1, 1, torch.device("cpu"))
        >>> for drive in (2.5, 0.0, 0.0):
        ...     drive_B1 = torch.tensor([[drive]])
        ...     state = conventional_step(drive_B1, torch.tensor([0.5]), state, firing).state
        ...     print(f"{state.spikes.item():.2f} {state.residue.item():.2f}")
        2.00 0.50
        0.00 1.75
        2.00 0.37
    """
    current = saturate(drive + decay * state.synaptic_current)
    return fire_step(current, current, state.residue, firing)


def gated_step(
    forget_drive: Tensor,
    cell_drive: Tensor,
    dropout_mask: Tensor | None,
    recurrent_weight: Tensor | None,
    state: LifState,
    firing: FiringRule,
) -> StepOutput:
    """The improved LIF layers v1 (without), v2 and v3 (with a recurrent weight)::

        F_t = sigma(forget_drive_t + U_f Y_{t-1})
        C_t = m ReLU(cell_drive_t + U_c Y_{t-1})
        I_t = F_t * I_{t-1} + (1 - F_t) * C_t

    Args:
        forget_drive: ``BN(W_f X_t)``, (B, H).
        cell_drive: ``BN(W_c X_t)``, (B, H).
        dropout_mask: m, (B, H), already scaled by 1 / keep; None for no dropout.
        recurrent_weight: ``[U_f; U_c]`` stacked, (2H, H), or None for v1.
        state: the state of the step before.
        firing: the layer's quantiser, and of v3 its leak.
    """
    if recurrent_weight is not None:
        from_forget, from_cell = (state.spikes @ recurrent_weight.T).chunk(2, dim=-1)
        forget_drive = forget_drive + from_forget
        cell_drive = cell_drive + from_cell
    forget = torch.sigmoid(forget_drive)
    cell = saturate(torch.relu(cell_drive))
    if dropout_mask is not None:
        cell = cell * dropout_mask
    current = saturate(forget * state.synaptic_current + (1.0 - forget) * cell)
    return fire_step(current, current, state.residue, firing)
