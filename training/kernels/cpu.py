"""The fused CPU backend on tensors: allocation, work sharing and calls of the kernels.

Shape legend: T time, B batch, H neurons, G = 2H, W = H rounded up to whole vectors.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from training.constants import SATURATION, UNQUANTIZED_BITS
from training.kernels import cpu_gated, cpu_products, cpu_scan, threads
from training.kernels.cpu_matrix import Array, flat, tiles, weight_gradient
from training.kernels.saved import (
    ForwardResult,
    GatedGradients,
    Saved,
    ScanGradients,
    num_bit_bytes,
)
from training.kernels.simd import LANES
from training.quantizer import Quantizer, level_scale


def _strided(tensor: Tensor) -> tuple[Array, tuple[int, int]]:
    """A (T, B, H) tensor as a flat array with its strides over frames and utterances.

    Copied only if its neurons are not adjacent, and then one row for all if all rows are one.
    """
    tensor = tensor.detach()
    if tensor.stride()[:2] == (0, 0) and tensor.numel():
        return flat(tensor[0, 0]), (0, 0)
    if tensor.numel() == 0:
        return np.zeros(0, np.float32), (0, 0)
    if tensor.stride(2) != 1 and tensor.shape[2] > 1:
        tensor = tensor.contiguous()
    strides = (tensor.stride(0), tensor.stride(1))
    extent = (
        1
        + sum((size - 1) * stride for size, stride in zip(tensor.shape[:2], strides, strict=True))
        + tensor.shape[2]
        - 1
    )
    return tensor.as_strided((extent,), (1,)).numpy(), strides


def _padded(tensor: Tensor) -> Tensor:
    """A fresh copy with rows of whole vectors, zeros at the end."""
    extra = -tensor.shape[-1] % LANES
    tensor = tensor.detach()
    if extra:
        return pad(tensor, (0, extra)).contiguous()
    return tensor.clone(memory_format=torch.contiguous_format)


def _unpadded(tensor: Tensor, num_neurons: int) -> Tensor:
    return tensor if tensor.shape[-1] == num_neurons else tensor[..., :num_neurons].contiguous()


def _shares(lengths_B: Tensor, num_frames: int) -> list[Array]:
    """Adjacent utterances for each thread, of about equal work, each share by falling length.

    Adjacent, because threads that write rows beside each other's wait for each other's cache lines.
    """
    if len(lengths_B) and not 0 <= int(lengths_B.amin()) <= int(lengths_B.amax()) <= num_frames:
        raise ValueError(f"lengths_B must lie between 0 and T={num_frames}: {lengths_B.tolist()}")
    count = min(threads.num_threads(), len(lengths_B))
    if count == 0:
        return []
    # A frame more for each: utterances without any are work as well.
    done = np.concatenate([[0], (lengths_B + 1).cumsum(0).numpy()])
    wanted = [done[-1] * part / count for part in range(1, count)]
    cuts = [0, *(int(np.abs(done - work).argmin()) for work in wanted), len(lengths_B)]
    return [_by_falling_length(lengths_B, *ends) for ends in itertools.pairwise(cuts)]


def _by_falling_length(lengths_B: Tensor, first: int, last: int) -> Array:
    order = torch.argsort(lengths_B[first:last], descending=True, stable=True)
    return (first + order).numpy()


def _kernel_quantizer(quantizer: Quantizer) -> tuple[np.float32, np.float32, np.float32, bool, Any]:
    is_quantized = quantizer.num_bits != UNQUANTIZED_BITS
    range_M = float(quantizer.range_M)
    scale = float(level_scale(quantizer.range_M, quantizer.num_bits)) if is_quantized else 1.0
    return (
        np.float32(range_M),
        np.float32(scale),
        np.float32(quantizer.threshold),
        is_quantized,
        np.float32(SATURATION),
    )


def _shape(num_frames: int, batch_size: int, num_neurons: int) -> tuple[int, int, int, int]:
    return num_frames, batch_size, num_neurons, num_neurons + -num_neurons % LANES


def _last_spikes(spikes_TBH: Tensor, lengths_B: Tensor, initial_BH: Tensor) -> Tensor:
    if spikes_TBH.shape[0] == 0:
        return initial_BH.detach().clone()
    last = (lengths_B - 1).clamp(min=0)
    found = spikes_TBH[last, torch.arange(len(last))]
    return torch.where((lengths_B > 0).unsqueeze(1), found, initial_BH.detach())


def _new_extremes(count: int) -> Tensor:
    extremes = torch.full((count, 2, LANES), torch.inf)
    extremes[:, 1] = -torch.inf
    return extremes


def _new_bits(shape: tuple[int, int, int], is_wanted: bool) -> Tensor:
    num_frames, batch_size, num_neurons = shape
    room = (num_frames, batch_size, num_bit_bytes(num_neurons)) if is_wanted else (0,)
    return torch.empty(room, dtype=torch.uint8)


def _run(shares: list[Array], call: Callable[[int, Array], Callable[[], object]]) -> None:
    threads.run([call(part, rows) for part, rows in enumerate(shares)])


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
    """Encoder (no decay) or conventional layer; every tensor float32 on the CPU."""
    shape = _shape(*drive_TBH.shape)
    num_neurons, width = shape[2:]
    drive, strides = _strided(drive_TBH)
    current, residue = _padded(synaptic_current_BH), _padded(residue_BH)
    decay = torch.zeros(width) if decay_H is None else _padded(decay_H)
    spikes = torch.empty(drive_TBH.shape)
    has_current = decay_H is not None
    currents = torch.empty(drive_TBH.shape if save and has_current else 0)
    inside = _new_bits(shape[:3], save)
    shares = _shares(lengths_B, shape[0])
    extremes = _new_extremes(len(shares))

    def call(part: int, rows: Array) -> Callable[[], object]:
        return partial(
            cpu_scan.scan_forward,
            rows,
            flat(lengths_B),
            shape,
            drive,
            strides,
            flat(decay),
            has_current,
            flat(current),
            flat(residue),
            flat(spikes),
            flat(currents),
            flat(inside),
            save,
            flat(extremes[part]),
            _kernel_quantizer(quantizer),
        )

    _run(shares, call)
    return ForwardResult(
        spikes,
        _unpadded(current, num_neurons),
        _unpadded(residue, num_neurons),
        _last_spikes(spikes, lengths_B, spikes_BH),
        extremes[:, 0].amin() if len(shares) else torch.tensor(torch.inf),
        extremes[:, 1].amax() if len(shares) else torch.tensor(-torch.inf),
        Saved(currents, inside, torch.empty(0, dtype=torch.uint8), torch.empty(0)),
    )


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
    shape = _shape(*grad_TBH.shape)
    num_neurons, width = shape[2:]
    grad, grad_strides = _strided(grad_TBH)
    decay = torch.zeros(width) if decay_H is None else _padded(decay_H)
    grad_current, grad_residue, grad_last = (_padded(grad) for grad in grad_state)
    shares = _shares(lengths_B, shape[0])
    grad_decay = torch.zeros(len(shares), width)
    grad_drive = torch.empty(grad_TBH.shape)
    initial = _padded(initial_current_BH)

    def call(part: int, rows: Array) -> Callable[[], object]:
        return partial(
            cpu_scan.scan_backward,
            rows,
            flat(lengths_B),
            shape,
            grad,
            grad_strides,
            flat(decay),
            decay_H is not None,
            flat(initial),
            flat(saved.currents),
            flat(saved.inside),
            is_quantized,
            flat(grad_last),
            flat(grad_current),
            flat(grad_residue),
            flat(grad_drive),
            flat(grad_decay[part]),
        )

    _run(shares, call)
    empty_sequence = (lengths_B == 0).unsqueeze(1)
    return ScanGradients(
        grad_drive,
        grad_decay.sum(0)[:num_neurons].clone(),
        _unpadded(grad_current, num_neurons),
        _unpadded(grad_residue, num_neurons),
        torch.where(empty_sequence, grad_state[2], 0.0),
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
    """Layers v1 (no weight) and v2; every tensor float32 on the CPU."""
    shape = _shape(drive_TBG.shape[0], drive_TBG.shape[1], drive_TBG.shape[2] // 2)
    num_neurons = shape[2]
    drive, strides = _strided(drive_TBG)
    nothing = np.zeros(0, np.float32)
    gather_weight = dense_weight = nothing
    if weight_2HH is not None:
        gather_weight = tiles(weight_2HH.T, cpu_products.GATHER_WIDTH)
        dense_weight = tiles(weight_2HH.T, cpu_products.DENSE_WIDTH)
    current, residue = _padded(synaptic_current_BH), _padded(residue_BH)
    spikes = torch.empty(shape[:3])
    saved = Saved(
        torch.empty(shape[:3] if save else 0),
        _new_bits(shape[:3], save),
        _new_bits(shape[:3], save),
        torch.empty(shape[:3] if save else 0),
    )
    shares = _shares(lengths_B, shape[0])
    extremes = _new_extremes(len(shares))

    def call(part: int, rows: Array) -> Callable[[], object]:
        return partial(
            cpu_gated.gated_forward,
            rows,
            flat(lengths_B),
            shape,
            drive,
            strides,
            nothing if mask_BH is None else flat(mask_BH),
            mask_BH is not None,
            gather_weight,
            dense_weight,
            weight_2HH is not None,
            flat(current),
            flat(residue),
            flat(spikes_BH),
            flat(spikes),
            flat(saved.gates),
            flat(saved.currents),
            flat(saved.inside),
            flat(saved.positive),
            save,
            flat(extremes[part]),
            _kernel_quantizer(quantizer),
        )

    _run(shares, call)
    return ForwardResult(
        spikes,
        _unpadded(current, num_neurons),
        _unpadded(residue, num_neurons),
        _last_spikes(spikes, lengths_B, spikes_BH),
        extremes[:, 0].amin() if len(shares) else torch.tensor(torch.inf),
        extremes[:, 1].amax() if len(shares) else torch.tensor(-torch.inf),
        saved,
    )


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
    shape = _shape(*grad_TBH.shape)
    num_frames, batch_size, num_neurons, _ = shape
    grad, grad_strides = _strided(grad_TBH)
    nothing = np.zeros(0, np.float32)
    has_weight = weight_2HH is not None
    dense_weight = nothing
    if weight_2HH is not None:
        dense_weight = tiles(weight_2HH, cpu_products.DENSE_WIDTH)
    grad_current, grad_residue, grad_last = (_padded(grad) for grad in grad_state)
    grad_drive = torch.empty(num_frames, batch_size, 2 * num_neurons)

    def call(part: int, rows: Array) -> Callable[[], object]:
        return partial(
            cpu_gated.gated_backward,
            rows,
            flat(lengths_B),
            shape,
            grad,
            grad_strides,
            nothing if mask_BH is None else flat(mask_BH),
            mask_BH is not None,
            dense_weight,
            has_weight,
            flat(initial_current_BH),
            flat(saved.gates),
            flat(saved.currents),
            flat(saved.inside),
            flat(saved.positive),
            is_quantized,
            flat(grad_last),
            flat(grad_current),
            flat(grad_residue),
            flat(grad_drive),
        )

    _run(_shares(lengths_B, shape[0]), call)
    grad_weight = torch.empty(0)
    if has_weight:
        grad_weight = recurrent_weight_gradient(grad_drive, spikes_TBH, initial_spikes_BH)
    return GatedGradients(
        grad_drive,
        grad_weight,
        _unpadded(grad_current, num_neurons),
        _unpadded(grad_residue, num_neurons),
        _unpadded(grad_last, num_neurons),
    )


def recurrent_weight_gradient(
    grad_drive_TBG: Tensor, spikes_TBH: Tensor, initial_spikes_BH: Tensor
) -> Tensor:
    """``dU = sum_t gp_t^T Y_{t-1}``, (2H, H), as one product over all frames."""
    if grad_drive_TBG.shape[0] == 0:
        return torch.zeros(grad_drive_TBG.shape[2], spikes_TBH.shape[2])
    gradient = weight_gradient(spikes_TBH[:-1].flatten(0, 1), grad_drive_TBG[1:].flatten(0, 1))
    if initial_spikes_BH.any():
        gradient += grad_drive_TBG[0].T @ initial_spikes_BH
    return gradient
