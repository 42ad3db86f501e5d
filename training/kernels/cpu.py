"""The fused CPU backend on tensors: allocation, work sharing and calls of the kernels.

Shape legend: T time, B batch, H neurons, G drives of a layer (H, or 2H where it is gated),
W = H rounded up to whole vectors.
"""

import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from training.constants import SATURATION
from training.kernels import cpu_gated, cpu_products, cpu_scan, firing_gradients, threads
from training.kernels.cpu_layer import (
    NO_FLOATS,
    BackwardArrays,
    CpuLayer,
    Firing,
    FiringSums,
    ForwardArrays,
    Frames,
    Kept,
    Share,
    Sizes,
)
from training.kernels.cpu_matrix import flat, tiles, weight_gradient
from training.kernels.layer import (
    Keep,
    Layer,
    LayerGradients,
    LayerWeights,
    OutputGradients,
    Saved,
    num_bit_bytes,
)
from training.kernels.simd import LANES
from training.lif import LifState, RecurrenceOutput


def _frames(tensor: Tensor) -> Frames:
    """A (T, B, G) tensor as a flat array with its strides over frames and utterances.

    Copied only if its neurons are not adjacent, and then one row for all if all rows are one.
    """
    tensor = tensor.detach()
    if tensor.stride()[:2] == (0, 0) and tensor.numel():
        return Frames(flat(tensor[0, 0]), 0, 0)
    if tensor.numel() == 0:
        return Frames(NO_FLOATS, 0, 0)
    if tensor.stride(2) != 1 and tensor.shape[2] > 1:
        tensor = tensor.contiguous()
    strides = (tensor.stride(0), tensor.stride(1))
    extent = (
        1
        + sum((size - 1) * stride for size, stride in zip(tensor.shape[:2], strides, strict=True))
        + tensor.shape[2]
        - 1
    )
    return Frames(tensor.as_strided((extent,), (1,)).numpy(), *strides)


def _padded(tensor: Tensor) -> Tensor:
    """A fresh copy with rows of whole vectors, zeros at the end."""
    extra = -tensor.shape[-1] % LANES
    tensor = tensor.detach()
    if extra:
        return pad(tensor, (0, extra)).contiguous()
    return tensor.clone(memory_format=torch.contiguous_format)


def _unpadded(tensor: Tensor, num_neurons: int) -> Tensor:
    return tensor if tensor.shape[-1] == num_neurons else tensor[..., :num_neurons].contiguous()


def _shares(lengths_B: Tensor, num_frames: int) -> list[Share]:
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


def _by_falling_length(lengths_B: Tensor, first: int, last: int) -> Share:
    order = torch.argsort(lengths_B[first:last], descending=True, stable=True)
    return Share((first + order).numpy(), flat(lengths_B))


def _firing(layer: Layer) -> Firing:
    quantizer = layer.quantizer
    range_M, leak = quantizer.range_M.detach(), layer.weights.residue_leak_H
    return Firing(
        range_M=np.float32(range_M.item()),
        scale=np.float32(quantizer.scale().item() if quantizer.is_quantized else 1.0),
        threshold=np.float32(quantizer.threshold_levels.item()),
        is_quantized=quantizer.is_quantized,
        residue_leak=NO_FLOATS if leak is None else flat(_padded(leak)),
        has_leak=leak is not None,
        saturation=np.float32(SATURATION),
    )


def _sizes(layer: Layer, sequence_TBX: Tensor) -> Sizes:
    num_frames, batch_size = sequence_TBX.shape[:2]
    num_neurons = layer.state.synaptic_current.shape[1]
    return Sizes(num_frames, batch_size, num_neurons, num_neurons + -num_neurons % LANES)


def _new_floats(sizes: Sizes, is_wanted: bool) -> Tensor:
    return torch.empty(sizes[:3] if is_wanted else (0,))


def _new_bits(sizes: Sizes, is_wanted: bool) -> Tensor:
    room = (*sizes[:2], num_bit_bytes(sizes.num_neurons)) if is_wanted else (0,)
    return torch.empty(room, dtype=torch.uint8)


def _kept(saved: Saved, spikes_TBH: Tensor, keep: Keep) -> Kept:
    return Kept(
        gates=flat(saved.gates),
        currents=flat(saved.currents),
        potentials=flat(saved.potentials),
        spikes=flat(spikes_TBH),
        inside=flat(saved.inside),
        positive=flat(saved.positive),
        is_wanted=keep.for_backward,
        has_potentials=keep.potentials,
    )


def _cpu_layer(layer: Layer, sequence_TBX: Tensor, is_backward: bool) -> CpuLayer:
    """The layer for its kernels; the sequence is the drive, or the spikes' gradient."""
    mask, decay = layer.rows.dropout_mask_BH, layer.weights.decay_H
    recurrent = layer.weights.recurrent_2HH
    gather_tiles = dense_tiles = NO_FLOATS
    if recurrent is not None and is_backward:
        dense_tiles = tiles(recurrent, cpu_products.DENSE_WIDTH)
    elif recurrent is not None:
        gather_tiles = tiles(recurrent.T, cpu_products.GATHER_WIDTH)
        dense_tiles = tiles(recurrent.T, cpu_products.DENSE_WIDTH)
    return CpuLayer(
        sizes=_sizes(layer, sequence_TBX),
        drive=_frames(sequence_TBX),
        dropout_mask=NO_FLOATS if mask is None else flat(mask),
        has_mask=mask is not None,
        decay=NO_FLOATS if decay is None else flat(_padded(decay)),
        has_decay=decay is not None,
        recurrent_gather=gather_tiles,
        recurrent_dense=dense_tiles,
        has_recurrence=recurrent is not None,
        initial_current=flat(_padded(layer.state.synaptic_current)),
        initial_spikes=flat(layer.state.spikes),
        firing=_firing(layer),
    )


def forward(layer: Layer, drive_TBG: Tensor, keep: Keep) -> tuple[RecurrenceOutput, Saved]:
    """See ``training.kernels.backend.RecurrenceBackend``; every tensor float32 on the CPU."""
    is_gated = layer.kind == "gated"
    cpu_layer = _cpu_layer(layer, drive_TBG, is_backward=False)
    sizes = cpu_layer.sizes
    current, residue = _padded(layer.state.synaptic_current), _padded(layer.state.residue)
    spikes = torch.empty(sizes[:3])
    save = keep.for_backward
    saved = Saved(
        currents=_new_floats(sizes, save and layer.kind != "encoder"),
        inside=_new_bits(sizes, save),
        positive=_new_bits(sizes, save and is_gated),
        gates=_new_floats(sizes, save and is_gated),
        potentials=_new_floats(sizes, save and keep.potentials),
        drive=torch.empty(0),
    )
    shares = _shares(layer.rows.lengths_B, sizes.num_frames)
    extremes = torch.full((len(shares), 2, LANES), torch.inf)
    extremes[:, 1] = -torch.inf
    kernel = cpu_gated.gated_forward if is_gated else cpu_scan.scan_forward
    kept = _kept(saved, spikes, keep)

    def call(share: Share, extremes: Tensor) -> Callable[[], object]:
        num_rows = len(share.utterances) if cpu_layer.has_recurrence else 0
        product = cpu_products.forward_product(num_rows, sizes.num_neurons)
        state = (flat(current), flat(residue))
        arrays = ForwardArrays(flat(spikes), *state, kept, flat(extremes), product)
        return partial(kernel, share, cpu_layer, arrays)

    threads.run([call(*own) for own in zip(shares, extremes, strict=True)])
    state = LifState(
        _unpadded(current, sizes.num_neurons),
        _unpadded(residue, sizes.num_neurons),
        layer.last_spikes(spikes),
    )
    minimum = extremes[:, 0].amin() if len(shares) else torch.tensor(torch.inf)
    maximum = extremes[:, 1].amax() if len(shares) else torch.tensor(-torch.inf)
    return RecurrenceOutput(spikes, state, minimum, maximum), saved


def backward(
    layer: Layer, spikes_TBH: Tensor, saved: Saved, gradients: OutputGradients
) -> LayerGradients:
    """See ``training.kernels.backend.RecurrenceBackend``."""
    is_gated = layer.kind == "gated"
    cpu_layer = _cpu_layer(layer, gradients.spikes_TBH, is_backward=True)
    sizes = cpu_layer.sizes
    lengths_B = layer.rows.lengths_B
    current, residue, last = (_padded(gradient) for gradient in gradients.state)
    drive = torch.empty(*sizes[:2], sizes.num_neurons * (2 if is_gated else 1))
    shares = _shares(lengths_B, sizes.num_frames)
    decay = torch.zeros(len(shares), sizes.width if cpu_layer.has_decay else 0)
    kernel = cpu_gated.gated_backward if is_gated else cpu_scan.scan_backward
    kept = _kept(saved, spikes_TBH, Keep(True, len(saved.potentials) > 0))

    num_sums = len(FiringSums._fields)
    sums = torch.zeros(len(shares), num_sums, sizes.width if kept.has_potentials else 0)

    def call(share: Share, decay: Tensor, sums: Tensor) -> Callable[[], object]:
        num_rows = len(share.utterances) if is_gated else 0
        product = cpu_products.backward_product(num_rows, sizes.num_neurons)
        state = (flat(last), flat(current), flat(residue))
        firing = FiringSums(*(flat(own) for own in sums))
        arrays = BackwardArrays(flat(drive), flat(decay), firing, *state, product)
        return partial(kernel, share, cpu_layer, kept, arrays)

    threads.run([call(*own) for own in zip(shares, decay, sums, strict=True)])
    if not is_gated:
        last = torch.where((lengths_B == 0).unsqueeze(1), gradients.state.spikes, 0.0)
    of_neurons = firing_gradients.FiringSums(*sums.sum(0)[:, : sizes.num_neurons])
    leak, range_M, threshold = firing_gradients.firing_gradients(
        layer, of_neurons if kept.has_potentials else None
    )
    weights = LayerWeights(
        decay_H=decay.sum(0)[: sizes.num_neurons].clone() if cpu_layer.has_decay else None,
        recurrent_2HH=recurrent_weight_gradient(drive, spikes_TBH, layer.state.spikes)
        if cpu_layer.has_recurrence
        else None,
        residue_leak_H=leak,
    )
    state = (_unpadded(gradient, sizes.num_neurons) for gradient in (current, residue, last))
    return LayerGradients(drive, weights, LifState(*state), range_M, threshold)


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
