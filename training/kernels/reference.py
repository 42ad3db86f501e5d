"""The clear backend: the steps of ``training.lif`` in a time loop, differentiated by autograd.

Slow; every other backend is tested against it. It alone can move the quantiser's range at
every time step, as the authors' code does (``range_update="timestep"``).

Shape legend: T time, B batch, H neurons.
"""

from collections.abc import Callable
from typing import Any, cast

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
    FiringRule,
    LifState,
    RecurrenceOutput,
    StepOutput,
    conventional_step,
    encoder_step,
    gated_step,
)
from training.quantizer import RangeTracker

Step = Callable[[int, LifState, FiringRule], StepOutput]


def scan(
    step: Step,
    num_frames: int,
    lengths_B: Tensor,
    state: LifState,
    firing: FiringRule,
    per_step_range: RangeTracker | None = None,
) -> RecurrenceOutput:
    """Run ``step`` over time; beyond an utterance's length its state rests and its output is 0.

    Args:
        step: (time index, state, firing) to step output.
        num_frames: T.
        lengths_B: valid frames of each utterance, (B,) int64.
        per_step_range: when given, moved by each step's extremes before that step fires.
    """
    spikes = []
    minimum = torch.full((), torch.inf, device=lengths_B.device)
    maximum = torch.full((), -torch.inf, device=lengths_B.device)
    for t in range(num_frames):
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
    layer: Layer, drive_TBG: Tensor, keep: Keep, per_step_range: RangeTracker | None = None
) -> tuple[RecurrenceOutput, Saved]:
    """See ``RecurrenceBackend``; autograd can differentiate it as well, any number of times."""
    lengths_B, num_frames = layer.rows.lengths_B, drive_TBG.shape[0]
    firing = FiringRule(layer.quantizer, layer.weights.residue_leak_H)
    step = _step(layer, drive_TBG)
    output = scan(step, num_frames, lengths_B, layer.state, firing, per_step_range)

    def nothing(dtype: torch.dtype = torch.float32) -> Tensor:
        return drive_TBG.new_empty(0, dtype=dtype)

    drive = drive_TBG.detach().clone() if keep.for_backward else nothing()
    saved = Saved(
        currents=nothing(),
        inside=nothing(torch.uint8),
        positive=nothing(torch.uint8),
        gates=nothing(),
        potentials=nothing(),
        drive=drive,
    )
    return output, saved


def backward(
    layer: Layer, spikes_TBH: Tensor, saved: Saved, gradients: OutputGradients
) -> LayerGradients:
    """See ``RecurrenceBackend``: the forward pass again, for autograd to differentiate."""
    levels = layer.quantizer
    given = (saved.drive, levels.range_M, levels.threshold_levels, *layer.weights, *layer.state)
    with torch.enable_grad():
        drive, range_M, threshold, *leaves = (
            None if tensor is None else tensor.detach().requires_grad_() for tensor in given
        )
        assert drive is not None
        learned = {"range_M": range_M, "threshold_levels": threshold}
        quantizer = levels._replace(**cast(Any, learned))
        again = layer._replace(quantizer=quantizer, **_parts(leaves))
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
    return LayerGradients(of_drive, **parts, range_M=of_range, threshold_levels=of_threshold)


def _parts(tensors: list[Tensor | None]) -> dict[str, Any]:
    """Weights and state from their tensors, in order."""
    num_weights = len(LayerWeights._fields)
    weights, state = tensors[:num_weights], cast(list[Tensor], tensors[num_weights:])
    return {"weights": LayerWeights(*weights), "state": LifState(*state)}
