"""The Triton backend on tensors: allocation and launches.

Runs on CUDA tensors, or on CPU tensors in Triton's interpreter (``TRITON_INTERPRET=1`` before
the first import), which is how it is tested without a GPU. Everything is computed in float32.

Shape legend: T time, B batch, H neurons, G = 2H.
"""

import torch
import triton
from torch import Tensor

from training.constants import SATURATION, UNQUANTIZED_BITS
from training.kernels import triton_frames, triton_kernels
from training.kernels.saved import ForwardResult, GatedGradients, Saved, ScanGradients
from training.kernels.triton_frames import (
    TILE_BLOCK,
    TILE_DEPTH,
    TILE_ROWS,
    FrameShape,
    tile_grid,
)
from training.quantizer import Quantizer, level_scale

SCAN_BLOCK = 128


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _scale(quantizer: Quantizer) -> Tensor:
    if quantizer.num_bits == UNQUANTIZED_BITS:
        return torch.ones_like(quantizer.range_M)
    return level_scale(quantizer.range_M, quantizer.num_bits)


def _last_spikes(spikes_TBH: Tensor, lengths_B: Tensor, initial_BH: Tensor) -> Tensor:
    if spikes_TBH.shape[0] == 0:
        return _copy(initial_BH)
    last = (lengths_B - 1).clamp(min=0)
    found = spikes_TBH[last, torch.arange(len(last), device=last.device)]
    return torch.where((lengths_B > 0).unsqueeze(1), found, initial_BH)


def _extremes(batch_size: int, num_neurons: int, like: Tensor) -> tuple[Tensor, Tensor]:
    low = like.new_full((batch_size, num_neurons), torch.inf, dtype=torch.float32)
    return low, -low


def _amin(values: Tensor) -> Tensor:
    return values.amin() if values.numel() else values.new_tensor(torch.inf)


def scan_forward(
    drive_TBH: Tensor,
    decay_H: Tensor | None,
    lengths_B: Tensor,
    synaptic_current_BH: Tensor,
    residue_BH: Tensor,
    spikes_BH: Tensor,
    quantizer: Quantizer,
    save: bool,
) -> ForwardResult:
    """Encoder (no decay) or conventional layer."""
    num_frames, batch_size, num_neurons = drive_TBH.shape
    drive = drive_TBH.contiguous()
    has_current = decay_H is not None
    current, residue = _copy(synaptic_current_BH), _copy(residue_BH)
    low, high = _extremes(batch_size, num_neurons, drive)
    spikes = torch.empty_like(drive)
    currents = drive.new_empty(drive.shape if save and has_current else 0)
    bits = drive.new_empty(drive.shape if save else 0, dtype=torch.uint8)
    grid = (batch_size, triton.cdiv(num_neurons, SCAN_BLOCK))
    if drive.numel():
        triton_kernels.scan_forward[grid](
            drive,
            drive if decay_H is None else decay_H.contiguous(),
            lengths_B,
            current,
            residue,
            spikes,
            currents,
            bits,
            low,
            high,
            quantizer.range_M,
            _scale(quantizer),
            float(quantizer.threshold),
            SATURATION,
            num_frames,
            num_neurons,
            batch_size,
            HAS_CURRENT=has_current,
            IS_QUANTIZED=quantizer.num_bits != UNQUANTIZED_BITS,
            SAVE=save,
            BLOCK=SCAN_BLOCK,
        )
    saved = Saved(currents, bits, bits.new_empty(0), drive.new_empty(0))
    last = _last_spikes(spikes, lengths_B, spikes_BH)
    return ForwardResult(spikes, current, residue, last, _amin(low), -_amin(-high), saved)


def scan_backward(
    grad_TBH: Tensor,
    grad_state: tuple[Tensor, Tensor, Tensor],
    decay_H: Tensor | None,
    lengths_B: Tensor,
    initial_current_BH: Tensor,
    saved: Saved,
    is_quantized: bool,
) -> ScanGradients:
    """Gradients, given those of the spikes and of the final state (I, R, Y)."""
    num_frames, batch_size, num_neurons = grad_TBH.shape
    grad = grad_TBH.contiguous()
    grad_current, grad_residue = _copy(grad_state[0]), _copy(grad_state[1])
    grad_drive = torch.empty_like(grad)
    grad_decay = grad.new_zeros(batch_size, num_neurons)
    grid = (batch_size, triton.cdiv(num_neurons, SCAN_BLOCK))
    if grad.numel():
        triton_kernels.scan_backward[grid](
            grad,
            grad if decay_H is None else decay_H.contiguous(),
            lengths_B,
            initial_current_BH.contiguous(),
            saved.currents,
            saved.inside,
            grad_state[2].contiguous(),
            grad_current,
            grad_residue,
            grad_drive,
            grad_decay,
            num_frames,
            num_neurons,
            batch_size,
            HAS_CURRENT=decay_H is not None,
            IS_QUANTIZED=is_quantized,
            BLOCK=SCAN_BLOCK,
        )
    grad_spikes = torch.where((lengths_B == 0).unsqueeze(1), grad_state[2], 0.0)
    return ScanGradients(grad_drive, grad_decay.sum(0), grad_current, grad_residue, grad_spikes)


def _frame_shape(
    sequence: Tensor, num_neurons: int, mask_BH: Tensor | None, quantizer: Quantizer, save: bool
) -> FrameShape:
    """The graph that serves a (T, B, ...) tensor; a backward pass has no threshold (0)."""
    return FrameShape(
        sequence.device,
        triton_frames.chunk_frames(sequence.shape[0], sequence.device),
        sequence.shape[1],
        num_neurons,
        mask_BH is not None,
        quantizer.num_bits != UNQUANTIZED_BITS,
        float(quantizer.threshold),
        save,
        triton_frames.dot_precision(),
    )


def gated_forward(
    drive_TBG: Tensor,
    mask_BH: Tensor | None,
    weight_2HH: Tensor | None,
    lengths_B: Tensor,
    synaptic_current_BH: Tensor,
    residue_BH: Tensor,
    spikes_BH: Tensor,
    quantizer: Quantizer,
    save: bool,
) -> ForwardResult:
    """Layers v1 (no weight), in one launch, and v2, in chunks of launches."""
    num_frames, batch_size, num_neurons = *drive_TBG.shape[:2], drive_TBG.shape[2] // 2
    drive = drive_TBG.contiguous()
    current, residue = _copy(synaptic_current_BH), _copy(residue_BH)
    low, high = _extremes(batch_size, num_neurons, drive)
    spikes = drive.new_empty(num_frames, batch_size, num_neurons)
    saved = Saved(
        drive.new_empty(spikes.shape if save else 0),
        drive.new_empty(spikes.shape if save else 0, dtype=torch.uint8),
        drive.new_empty(0, dtype=torch.uint8),
        drive.new_empty(spikes.shape if save else 0),
    )
    if spikes.numel() and weight_2HH is not None:
        shape = _frame_shape(drive, num_neurons, mask_BH, quantizer, save)
        with triton_frames.lock:
            frames = triton_frames.forward_frames(shape)
            triton_frames.fill(
                frames,
                weight=weight_2HH,
                current=current,
                residue=residue,
                before=spikes_BH,
                mask=1.0 if mask_BH is None else mask_BH,
                low=torch.inf,
                high=-torch.inf,
                range_M=quantizer.range_M,
                scale=_scale(quantizer),
            )
            frames.run(drive, lengths_B, spikes, saved)
            for target, source in (
                (current, frames.current),
                (residue, frames.residue),
                (low, frames.low),
                (high, frames.high),
            ):
                target.copy_(source)
    elif spikes.numel():
        triton_kernels.gated_forward[tile_grid(batch_size, num_neurons)](
            drive,
            drive if mask_BH is None else mask_BH.contiguous(),
            drive,
            lengths_B,
            current,
            residue,
            drive,
            spikes,
            saved.gates,
            saved.currents,
            saved.inside,
            low,
            high,
            quantizer.range_M,
            _scale(quantizer),
            float(quantizer.threshold),
            SATURATION,
            0,
            num_frames,
            batch_size,
            num_neurons,
            HAS_MASK=mask_BH is not None,
            HAS_RECURRENCE=False,
            IS_QUANTIZED=quantizer.num_bits != UNQUANTIZED_BITS,
            SAVE=save,
            PRECISION="ieee",
            ROWS=TILE_ROWS,
            BLOCK=TILE_BLOCK,
            DEPTH=TILE_DEPTH,
        )
    last_spikes = _last_spikes(spikes, lengths_B, spikes_BH)
    return ForwardResult(spikes, current, residue, last_spikes, _amin(low), -_amin(-high), saved)


def gated_backward(
    grad_TBH: Tensor,
    grad_state: tuple[Tensor, Tensor, Tensor],
    mask_BH: Tensor | None,
    weight_2HH: Tensor | None,
    lengths_B: Tensor,
    initial_current_BH: Tensor,
    initial_spikes_BH: Tensor,
    spikes_TBH: Tensor,
    saved: Saved,
    is_quantized: bool,
) -> GatedGradients:
    """Gradients, given those of the spikes and of the final state (I, R, Y)."""
    num_frames, batch_size, num_neurons = grad_TBH.shape
    grad = grad_TBH.contiguous()
    grad_current, grad_residue = _copy(grad_state[0]), _copy(grad_state[1])
    grad_drive = grad.new_empty(num_frames, batch_size, 2 * num_neurons)
    if grad.numel() and weight_2HH is not None:
        quantizer = Quantizer(grad, 1 if is_quantized else UNQUANTIZED_BITS, 0)
        shape = _frame_shape(grad, num_neurons, mask_BH, quantizer, True)
        with triton_frames.lock:
            frames = triton_frames.backward_frames(shape)
            triton_frames.fill(
                frames,
                weight=weight_2HH,
                mask=1.0 if mask_BH is None else mask_BH,
                grad_last=grad_state[2],
                grad_current=grad_current,
                grad_residue=grad_residue,
            )
            frames.run(grad, lengths_B, initial_current_BH, saved, grad_drive)
            grad_current.copy_(frames.grad_current)
            grad_residue.copy_(frames.grad_residue)
    elif grad.numel():
        triton_kernels.gated_backward[tile_grid(batch_size, num_neurons)](
            grad,
            grad if mask_BH is None else mask_BH.contiguous(),
            grad,
            lengths_B,
            initial_current_BH.contiguous(),
            saved.gates,
            saved.currents,
            saved.inside,
            grad_state[2].contiguous(),
            grad_current,
            grad_residue,
            grad_drive,
            num_frames,
            0,
            num_frames,
            batch_size,
            num_neurons,
            HAS_MASK=mask_BH is not None,
            HAS_RECURRENCE=False,
            IS_QUANTIZED=is_quantized,
            PRECISION="ieee",
            ROWS=TILE_ROWS,
            BLOCK=TILE_BLOCK,
            DEPTH=TILE_DEPTH,
        )
    grad_spikes = torch.where((lengths_B == 0).unsqueeze(1), grad_state[2], 0.0)
    grad_weight = grad.new_zeros(0)
    if weight_2HH is not None and num_frames:
        with torch.autocast(grad.device.type, enabled=False):
            grad_spikes = grad_spikes + grad_drive[0] @ weight_2HH
            grad_weight = grad_drive[0].T @ initial_spikes_BH
            grad_weight += grad_drive[1:].flatten(0, 1).T @ spikes_TBH[:-1].flatten(0, 1)
    elif weight_2HH is not None:
        grad_weight = torch.zeros_like(weight_2HH)
    return GatedGradients(grad_drive, grad_weight, grad_current, grad_residue, grad_spikes)
