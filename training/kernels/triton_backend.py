"""The Triton backend on tensors: allocation and launches.

Runs on CUDA tensors, or on CPU tensors in Triton's interpreter (``TRITON_INTERPRET=1`` before
the first import), which is how it is tested without a GPU. Everything is computed in float32.

Shape legend: T time, B batch, H neurons, G drives of a layer (H, or 2H where it is gated).
"""

import torch
import triton
from torch import Tensor

from training.kernels import triton_frames, triton_kernels
from training.kernels.firing_gradients import FiringSums, firing_gradients
from training.kernels.layer import Keep, Layer, LayerGradients, LayerWeights, OutputGradients, Saved
from training.kernels.triton_frames import FrameGradients, FrameInputs, FrameOutputs, FrameShape
from training.kernels.triton_layer import (
    Kept,
    Membrane,
    MembraneGradients,
    copied,
    firing_of,
    new_membrane,
    options_of,
)
from training.lif import LifState, RecurrenceOutput

SCAN_BLOCK = 128


def _amin(values: Tensor) -> Tensor:
    return values.amin() if values.numel() else values.new_tensor(torch.inf)


def _scan_options(layer: Layer, has_potentials: bool) -> dict[str, object]:
    return {
        "HAS_CURRENT": layer.weights.decay_H is not None,
        "BLOCK": SCAN_BLOCK,
        **options_of(layer, has_potentials).constants(),
    }


def _has_potentials(kept: Kept) -> bool:
    return len(kept.potentials) > 0


def _scan_forward(
    layer: Layer, drive: Tensor, membrane: Membrane, spikes: Tensor, kept: Kept, save: bool
) -> None:
    num_frames, batch_size, num_neurons = drive.shape
    decay_H = layer.weights.decay_H
    triton_kernels.scan_forward[batch_size, triton.cdiv(num_neurons, SCAN_BLOCK)](
        drive,
        drive if decay_H is None else decay_H.contiguous(),
        layer.rows.lengths_B,
        membrane,
        spikes,
        kept,
        firing_of(layer),
        num_frames,
        num_neurons,
        batch_size,
        SAVE=save,
        **_scan_options(layer, _has_potentials(kept)),
    )


def _scan_backward(
    layer: Layer, grad: Tensor, kept: Kept, gradients: FrameGradients, grad_drive: Tensor
) -> Tensor:
    """Fills the gradient of the drive; returns that of the decay, (B, H)."""
    num_frames, batch_size, num_neurons = grad.shape
    decay_H = layer.weights.decay_H
    grad_decay = grad.new_zeros(batch_size, num_neurons)
    if grad.numel():
        triton_kernels.scan_backward[batch_size, triton.cdiv(num_neurons, SCAN_BLOCK)](
            grad,
            grad if decay_H is None else decay_H.contiguous(),
            layer.rows.lengths_B,
            layer.state.synaptic_current.contiguous(),
            kept,
            gradients.membrane,
            firing_of(layer),
            gradients.sums,
            grad_drive,
            grad_decay,
            num_frames,
            num_neurons,
            batch_size,
            **_scan_options(layer, _has_potentials(kept)),
        )
    return grad_decay


def _frame_shape(layer: Layer, num_frames: int, kept: Kept, save: bool) -> FrameShape:
    """The graph that serves a gated layer."""
    batch_size, num_neurons = layer.state.spikes.shape
    device = layer.state.spikes.device
    has_recurrence = layer.weights.recurrent_2HH is not None
    return FrameShape(
        device,
        triton_frames.chunk_frames(num_frames, device),
        batch_size,
        num_neurons,
        layer.rows.dropout_mask_BH is not None,
        has_recurrence,
        save,
        options_of(layer, _has_potentials(kept)),
        triton_frames.dot_precision() if has_recurrence else "ieee",
    )


def _frame_inputs(layer: Layer, sequence: Tensor, before_BH: Tensor) -> FrameInputs:
    mask, weight = layer.rows.dropout_mask_BH, layer.weights.recurrent_2HH
    return FrameInputs(
        sequence,
        sequence if mask is None else mask.contiguous(),
        sequence if weight is None else weight,
        layer.rows.lengths_B,
        before_BH.contiguous(),
        firing_of(layer),
    )


def _gated_forward(
    layer: Layer, drive: Tensor, membrane: Membrane, outputs: FrameOutputs, save: bool
) -> None:
    """Layer v1 (no recurrent weight) in one launch, v2 in chunks of launches."""
    num_frames = drive.shape[0]
    shape = _frame_shape(layer, num_frames, outputs.kept, save)
    inputs = _frame_inputs(layer, drive, layer.state.spikes)
    if shape.has_recurrence:
        with triton_frames.lock:
            triton_frames.forward_frames(shape).run(inputs, membrane, outputs)
    else:
        times = range(num_frames)
        triton_frames.launch_forward(shape, inputs, membrane, outputs, times)


def _gated_backward(
    layer: Layer, grad: Tensor, gradients: FrameGradients, outputs: FrameOutputs
) -> None:
    shape = _frame_shape(layer, grad.shape[0], outputs.kept, save=True)
    inputs = _frame_inputs(layer, grad, layer.state.synaptic_current)
    if shape.has_recurrence:
        with triton_frames.lock:
            triton_frames.backward_frames(shape).run(inputs, gradients, outputs)
    else:
        times = range(grad.shape[0])
        triton_frames.launch_backward(shape, inputs, gradients, outputs, grad.shape[0], times)


def forward(layer: Layer, drive_TBG: Tensor, keep: Keep) -> tuple[RecurrenceOutput, Saved]:
    """See ``training.kernels.backend.RecurrenceBackend``."""
    save = keep.for_backward
    drive = drive_TBG.contiguous()
    is_gated = layer.kind == "gated"
    membrane = new_membrane(layer.state.synaptic_current, layer.state.residue)
    spikes = drive.new_empty(drive.shape[0], *layer.state.spikes.shape)

    def kept(is_wanted: bool, dtype: torch.dtype = torch.float32) -> Tensor:
        return drive.new_empty(spikes.shape if is_wanted else 0, dtype=dtype)

    has_current = save and layer.kind != "encoder"
    written = Kept(
        gates=kept(save and is_gated),
        currents=kept(has_current),
        potentials=kept(save and keep.potentials),
        bits=kept(save, torch.uint8),
    )
    if spikes.numel() and is_gated:
        _gated_forward(layer, drive, membrane, FrameOutputs(spikes, written), save)
    elif spikes.numel():
        _scan_forward(layer, drive, membrane, spikes, written, save)
    state = LifState(membrane.current, membrane.residue, layer.last_spikes(spikes))
    minimum, maximum = _amin(membrane.low), -_amin(-membrane.high)
    saved = Saved(
        currents=written.currents,
        inside=written.bits,
        positive=kept(False, torch.uint8),
        gates=written.gates,
        potentials=written.potentials,
        drive=kept(False),
    )
    return RecurrenceOutput(spikes, state, minimum, maximum), saved


def backward(
    layer: Layer, spikes_TBH: Tensor, saved: Saved, gradients: OutputGradients
) -> LayerGradients:
    """See ``training.kernels.backend.RecurrenceBackend``."""
    grad = gradients.spikes_TBH.contiguous()
    kept = Kept(saved.gates, saved.currents, saved.potentials, saved.inside)
    of_state = gradients.state
    membrane = MembraneGradients(
        of_state.spikes.contiguous(), copied(of_state.synaptic_current), copied(of_state.residue)
    )
    has_potentials = _has_potentials(kept)
    sums = FiringSums(
        *(torch.zeros_like(membrane.residue) for _ in FiringSums._fields)
        if has_potentials
        else [membrane.residue] * len(FiringSums._fields)
    )
    both = FrameGradients(membrane, sums)
    is_empty_B1 = (layer.rows.lengths_B == 0).unsqueeze(1)
    grad_spikes = torch.where(is_empty_B1, of_state.spikes, 0.0)
    weights = LayerWeights()
    if layer.kind == "gated":
        drive = grad.new_empty(*grad.shape[:2], 2 * grad.shape[2])
        if grad.numel():
            _gated_backward(layer, grad, both, FrameOutputs(drive, kept))
        weight_2HH = layer.weights.recurrent_2HH
        if weight_2HH is not None:
            before, grad_weight = _recurrent_gradients(layer.state, weight_2HH, spikes_TBH, drive)
            grad_spikes = grad_spikes + before
            weights = LayerWeights(recurrent_2HH=grad_weight)
    else:
        drive = torch.empty_like(grad)
        grad_decay = _scan_backward(layer, grad, kept, both, drive)
        if layer.weights.decay_H is not None:
            weights = LayerWeights(decay_H=grad_decay.sum(0))
    of_neurons = FiringSums(*(each.sum(0) for each in sums)) if has_potentials else None
    leak, range_M, threshold = firing_gradients(layer, of_neurons)
    state = LifState(membrane.current, membrane.residue, grad_spikes)
    return LayerGradients(drive, weights._replace(residue_leak_H=leak), state, range_M, threshold)


def _recurrent_gradients(
    state: LifState, weight_2HH: Tensor, spikes_TBH: Tensor, grad_drive: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the spikes before the first frame, through U, and of U."""
    if not len(grad_drive):
        return torch.zeros_like(state.spikes), torch.zeros_like(weight_2HH)
    with torch.autocast(grad_drive.device.type, enabled=False):
        grad_weight = grad_drive[0].T @ state.spikes
        grad_weight += grad_drive[1:].flatten(0, 1).T @ spikes_TBH[:-1].flatten(0, 1)
        return grad_drive[0] @ weight_2HH, grad_weight
