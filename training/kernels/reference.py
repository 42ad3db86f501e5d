"""The reference: the steps of ``training.lif`` in a time loop, differentiated by autograd.

Slow; every backend is tested against it. It alone can move the quantiser's range at
every time step, as the authors' code does (``range_update="timestep"``).

Shape legend: T time, B batch, H neurons.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from training.kernels.layer import Layer, LayerKind
from training.lif import (
    FiringRule,
    LifState,
    StepOutput,
    conventional_step,
    encoder_step,
    gated_step,
)
from training.quantizer import RangeTracker
from training.recurrence_types import RecurrenceOutput

Step = Callable[[int, LifState, FiringRule], StepOutput]


def _step(layer: Layer, drive_TBG: Tensor) -> Step:
    """One step of a kind of layer; a new kind is one case more."""
    weights, mask_BH = layer.weights, layer.rows.dropout_mask_BH

    def encode(t: int, before: LifState, firing: FiringRule) -> StepOutput:
        return encoder_step(drive_TBG[t], before, firing)

    def decay(t: int, before: LifState, firing: FiringRule) -> StepOutput:
        assert weights.decay_H is not None
        return conventional_step(drive_TBG[t], weights.decay_H, before, firing)

    def gate(t: int, before: LifState, firing: FiringRule) -> StepOutput:
        forget_BH, cell_BH = drive_TBG[t].chunk(2, dim=-1)
        return gated_step(forget_BH, cell_BH, mask_BH, weights.recurrent_2HH, before, firing)

    steps: dict[LayerKind, Step] = {"encoder": encode, "conventional": decay, "gated": gate}
    return steps[layer.kind]


def forward(
    layer: Layer, drive_TBG: Tensor, per_step_range: RangeTracker | None = None
) -> RecurrenceOutput:
    """Run the recurrence; beyond an utterance's length its state rests and its output is 0.

    Args:
        layer: everything but the drive.
        drive_TBG: both drives of a gated layer, forget first.
        per_step_range: when given, moved by each step's extremes before that step fires.
    """
    step, lengths_B, state = _step(layer, drive_TBG), layer.rows.lengths_B, layer.state
    firing = FiringRule(layer.quantizer, layer.weights.residue_leak_H, layer.options)
    spikes = []
    minimum = torch.full((), torch.inf, device=lengths_B.device)
    maximum = torch.full((), -torch.inf, device=lengths_B.device)
    for t in range(drive_TBG.shape[0]):
        valid_B1 = (t < lengths_B).unsqueeze(1)
        if per_step_range is not None and bool(valid_B1.any()):
            with torch.no_grad():
                seen = step(t, state, firing).membrane_potential[valid_B1.squeeze(1)]
            per_step_range.update(seen.min(), seen.max())
            moved = firing.quantizer._replace(range_M=per_step_range.range_M())
            firing = firing._replace(quantizer=moved)
        after, potential = step(t, state, firing)
        spikes.append(torch.where(valid_B1, after.spikes, torch.zeros_like(after.spikes)))
        state = LifState(*(torch.where(valid_B1, a, b) for a, b in zip(after, state, strict=True)))
        observed = potential.detach()
        minimum = torch.minimum(minimum, observed.masked_fill(~valid_B1, torch.inf).min())
        maximum = torch.maximum(maximum, observed.masked_fill(~valid_B1, -torch.inf).max())
    if not spikes:
        return RecurrenceOutput(
            state.spikes.new_zeros(0, *state.spikes.shape), state, minimum, maximum
        )
    return RecurrenceOutput(torch.stack(spikes), state, minimum, maximum)
