"""The clear backend: the steps of ``training.lif`` in a time loop, differentiated by autograd.

Slow, and the yardstick for every other backend. It alone can move the quantiser's range at
every time step, as the authors' code does (``range_update="timestep"``).

Shape legend: T time, B batch, H neurons.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from training.lif import (
    LeakyFiring,
    LifState,
    StepOutput,
    conventional_step,
    encoder_step,
    gated_step,
    leaky_encoder_step,
    leaky_gated_step,
)
from training.quantizer import Quantizer, RangeTracker
from training.recurrence_types import RecurrenceOutput

FiringT = TypeVar("FiringT", Quantizer, LeakyFiring)
Step = Callable[[int, LifState, FiringT], StepOutput]


def scan(
    step: Step[FiringT],
    num_frames: int,
    lengths_B: Tensor,
    state: LifState,
    firing: FiringT,
    per_step_range: RangeTracker | None = None,
) -> RecurrenceOutput:
    """Run ``step`` over time; beyond an utterance's length its state rests and its output is 0.

    Args:
        step: (time index, state, firing) to step output.
        num_frames: T.
        lengths_B: valid frames of each utterance, (B,) int64.
        state: state before the first frame.
        firing: how the site fires, its quantiser or more.
        per_step_range: when given, moved by each step's extremes before that step fires.
    """
    spikes = []
    minimum = torch.full((), torch.inf, device=lengths_B.device)
    maximum = torch.full((), -torch.inf, device=lengths_B.device)
    for t in range(num_frames):
        valid_B1 = (t < lengths_B).unsqueeze(1)
        if per_step_range is not None and bool(valid_B1.any()):
            assert isinstance(firing, Quantizer)
            with torch.no_grad():
                seen = step(t, state, firing).membrane_potential[valid_B1.squeeze(1)]
            per_step_range.update(seen.min(), seen.max())
            firing = firing._replace(range_M=per_step_range.range_M())
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


def encoder(
    drive_TBH: Tensor,
    lengths_B: Tensor,
    state: LifState,
    quantizer: Quantizer,
    per_step_range: RangeTracker | None = None,
) -> RecurrenceOutput:
    """The input encoder over a sequence; see ``training.lif.encoder_step``."""

    def step(t: int, before: LifState, current: Quantizer) -> StepOutput:
        return encoder_step(drive_TBH[t], before, current)

    return scan(step, drive_TBH.shape[0], lengths_B, state, quantizer, per_step_range)


def conventional(
    drive_TBH: Tensor,
    decay_H: Tensor,
    lengths_B: Tensor,
    state: LifState,
    quantizer: Quantizer,
    per_step_range: RangeTracker | None = None,
) -> RecurrenceOutput:
    """The conventional layer over a sequence; see ``training.lif.conventional_step``."""

    def step(t: int, before: LifState, current: Quantizer) -> StepOutput:
        return conventional_step(drive_TBH[t], decay_H, before, current)

    return scan(step, drive_TBH.shape[0], lengths_B, state, quantizer, per_step_range)


def gated(
    forget_drive_TBH: Tensor,
    cell_drive_TBH: Tensor,
    dropout_mask_BH: Tensor | None,
    recurrent_weight_2HH: Tensor | None,
    lengths_B: Tensor,
    state: LifState,
    quantizer: Quantizer,
    per_step_range: RangeTracker | None = None,
) -> RecurrenceOutput:
    """The improved layers v1 and v2 over a sequence; see ``training.lif.gated_step``."""

    def step(t: int, before: LifState, current: Quantizer) -> StepOutput:
        return gated_step(
            forget_drive_TBH[t],
            cell_drive_TBH[t],
            dropout_mask_BH,
            recurrent_weight_2HH,
            before,
            current,
        )

    return scan(step, forget_drive_TBH.shape[0], lengths_B, state, quantizer, per_step_range)


def leaky_encoder(
    drive_TBH: Tensor, lengths_B: Tensor, state: LifState, firing: LeakyFiring
) -> RecurrenceOutput:
    """v3's input encoder over a sequence; see ``training.lif.leaky_encoder_step``."""

    def step(t: int, before: LifState, current: LeakyFiring) -> StepOutput:
        return leaky_encoder_step(drive_TBH[t], before, current)

    return scan(step, drive_TBH.shape[0], lengths_B, state, firing)


def leaky_gated(
    drive_TBG: Tensor,
    dropout_mask_BH: Tensor | None,
    recurrent_weight_2HH: Tensor,
    lengths_B: Tensor,
    state: LifState,
    firing: LeakyFiring,
) -> RecurrenceOutput:
    """The layer of v3 over a sequence; see ``training.lif.leaky_gated_step``."""
    forget, cell = drive_TBG.chunk(2, dim=-1)

    def step(t: int, before: LifState, current: LeakyFiring) -> StepOutput:
        return leaky_gated_step(
            forget[t], cell[t], dropout_mask_BH, recurrent_weight_2HH, before, current
        )

    return scan(step, drive_TBG.shape[0], lengths_B, state, firing)
