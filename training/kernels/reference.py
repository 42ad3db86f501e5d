"""The clear backend: the steps of ``training.lif`` in a time loop, differentiated by autograd.

Slow; every other backend is tested against it. It alone can move the quantiser's range at
every time step, as the authors' code does (``range_update="timestep"``).

Shape legend: T time, B batch, H neurons.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from training.kernels.layer import (
    Keep,
    Layer,
    LayerGradients,
    LayerKind,
    LayerWeights,
    OutputGradients,
    Saved,
)
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
from training.quantizer import LevelQuantizer, Quantizer, RangeTracker, as_levels
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


def _step(layer: Layer, drive_TBG: Tensor) -> Step[Quantizer]:
    """One step of the equations of the paper's models; a new kind of layer is one case more."""
    weights, mask_BH = layer.weights, layer.rows.dropout_mask_BH

    def encode(t: int, before: LifState, quantizer: Quantizer) -> StepOutput:
        return encoder_step(drive_TBG[t], before, quantizer)

    def decay(t: int, before: LifState, quantizer: Quantizer) -> StepOutput:
        assert weights.decay_H is not None
        return conventional_step(drive_TBG[t], weights.decay_H, before, quantizer)

    def gate(t: int, before: LifState, quantizer: Quantizer) -> StepOutput:
        forget_BH, cell_BH = drive_TBG[t].chunk(2, dim=-1)
        return gated_step(forget_BH, cell_BH, mask_BH, weights.recurrent_2HH, before, quantizer)

    steps: dict[LayerKind, Step[Quantizer]] = {
        "encoder": encode,
        "conventional": decay,
        "gated": gate,
    }
    return steps[layer.kind]


def _leaky_step(layer: Layer, drive_TBG: Tensor) -> Step[LeakyFiring]:
    """One step of the equations of v3."""
    recurrent_2HH, mask_BH = layer.weights.recurrent_2HH, layer.rows.dropout_mask_BH

    def encode(t: int, before: LifState, firing: LeakyFiring) -> StepOutput:
        return leaky_encoder_step(drive_TBG[t], before, firing)

    def gate(t: int, before: LifState, firing: LeakyFiring) -> StepOutput:
        assert recurrent_2HH is not None
        forget_BH, cell_BH = drive_TBG[t].chunk(2, dim=-1)
        return leaky_gated_step(forget_BH, cell_BH, mask_BH, recurrent_2HH, before, firing)

    return encode if layer.kind == "encoder" else gate


def forward(
    layer: Layer, drive_TBG: Tensor, keep: Keep, per_step_range: RangeTracker | None = None
) -> tuple[RecurrenceOutput, Saved]:
    """See ``RecurrenceBackend``; autograd can differentiate it as well, any number of times."""
    lengths_B, num_frames = layer.rows.lengths_B, drive_TBG.shape[0]
    if isinstance(layer.quantizer, Quantizer):
        step = _step(layer, drive_TBG)
        output = scan(step, num_frames, lengths_B, layer.state, layer.quantizer, per_step_range)
    else:
        firing = LeakyFiring(layer.quantizer, layer.weights.residue_leak_H, layer.options)
        leaky_step = _leaky_step(layer, drive_TBG)
        output = scan(leaky_step, num_frames, lengths_B, layer.state, firing)

    def nothing(dtype: torch.dtype = torch.float32) -> Tensor:
        return drive_TBG.new_empty(0, dtype=dtype)

    drive = drive_TBG.detach().clone() if keep.for_backward else nothing()
    saved = Saved(
        currents=nothing(),
        inside=nothing(torch.uint8),
        positive=nothing(torch.uint8),
        bounded=nothing(torch.uint8),
        gates=nothing(),
        potentials=nothing(),
        drive=drive,
    )
    return output, saved


def backward(
    layer: Layer, spikes_TBH: Tensor, saved: Saved, gradients: OutputGradients
) -> LayerGradients:
    """See ``RecurrenceBackend``: the forward pass again, for autograd to differentiate."""
    quantizer = layer.quantizer
    is_learned = isinstance(quantizer, LevelQuantizer)
    levels = as_levels(quantizer)
    given = (saved.drive, levels.range_M, levels.threshold_levels, *layer.weights, *layer.state)
    with torch.enable_grad():
        drive, range_M, threshold, *leaves = (
            None if tensor is None else tensor.detach().requires_grad_() for tensor in given
        )
        assert drive is not None
        again = layer._replace(**_parts(leaves))
        if is_learned:
            learned = {"range_M": range_M, "threshold_levels": threshold}
            again = again._replace(quantizer=levels._replace(**cast(Any, learned)))
        output, _ = forward(again, drive, Keep(for_backward=False))
        found = torch.autograd.grad(
            (output.spikes_TBH, *output.state),
            [leaf for leaf in (drive, range_M, threshold, *leaves) if leaf is not None],
            (gradients.spikes_TBH, *gradients.state),
            materialize_grads=True,
        )
    of_drive, of_range, of_threshold, *others = found
    of_leaves = iter(others)
    parts = _parts([None if leaf is None else next(of_leaves) for leaf in leaves])
    if not is_learned:
        return LayerGradients(of_drive, **parts)
    return LayerGradients(of_drive, **parts, range_M=of_range, threshold_levels=of_threshold)


def _parts(tensors: list[Tensor | None]) -> dict[str, Any]:
    """Weights and state from their tensors, in order."""
    num_weights = len(LayerWeights._fields)
    weights, state = tensors[:num_weights], cast(list[Tensor], tensors[num_weights:])
    return {"weights": LayerWeights(*weights), "state": LifState(*state)}
