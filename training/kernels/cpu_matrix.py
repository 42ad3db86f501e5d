"""Products of spikes with a matrix on CPU tensors: sparse where spikes are, else dense.

Shape legend: N frames, H presynaptic neurons, G outputs.
"""

import itertools
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from training.kernels import cpu_products, cpu_spike_linear, threads

Array = np.ndarray[Any, Any]

# Where the sparse products stop paying against PyTorch's dense ones: measured on an AVX2 core,
# they meet between 0.35 and 0.4.
DENSE_ABOVE = 0.33
SAMPLED_ROWS = 512
MIN_ROWS = 64
# Dense products go through PyTorch a block of rows at a time: of tall operands its BLAS (MKL on
# AMD processors) makes less than half the speed, 67 against 159 GFLOP/s at 25,600 rows.
DENSE_BLOCK = 1024


def flat(tensor: Tensor) -> Array:
    """The tensor's memory as a flat array; a copy only if it is not contiguous."""
    return tensor.detach().contiguous().reshape(-1).numpy()


def tiles(matrix: Tensor, width: int) -> Array:
    """A (rows, columns) weight as column tiles (tiles, rows, width), zero-padded, flat."""
    rows, columns = matrix.shape
    padded = pad(matrix.detach(), (0, -columns % width))
    return flat(padded.view(rows, -1, width).transpose(0, 1))


def is_sparse(spikes_NH: Tensor) -> bool:
    """Whether few enough of a sample of the rows' entries are non-zero."""
    num_rows = spikes_NH.shape[0]
    if num_rows < MIN_ROWS or spikes_NH.shape[1] < cpu_products.GATHER_WIDTH:
        return False
    sample = spikes_NH[:: max(1, num_rows // SAMPLED_ROWS)]
    return int(torch.count_nonzero(sample)) <= DENSE_ABOVE * sample.numel()


def _parts(num_rows: int) -> list[tuple[int, int]]:
    count = max(1, min(threads.num_threads(), num_rows // MIN_ROWS))
    cuts = [num_rows * part // count for part in range(count + 1)]
    return list(itertools.pairwise(cuts))


def dense_product(left_NK: Tensor, right_KM: Tensor) -> Tensor:
    """``left @ right`` of many rows, (N, M)."""
    out = left_NK.new_empty(left_NK.shape[0], right_KM.shape[1])
    with torch.autocast("cpu", enabled=False):
        for rows, to in zip(left_NK.split(DENSE_BLOCK), out.split(DENSE_BLOCK), strict=True):
            torch.mm(rows, right_KM, out=to)
    return out


def dense_weight_gradient(left_NK: Tensor, right_NM: Tensor) -> Tensor:
    """``left^T @ right`` summed over many rows, (K, M)."""
    out = left_NK.new_zeros(left_NK.shape[1], right_NM.shape[1])
    with torch.autocast("cpu", enabled=False):
        for left, right in zip(
            left_NK.split(DENSE_BLOCK), right_NM.split(DENSE_BLOCK), strict=True
        ):
            out.addmm_(left.T, right)
    return out


def times_weight(spikes_NH: Tensor, weight_GH: Tensor, in_order: bool) -> Tensor:
    """``Y W^T``, (N, G), float32.

    Args:
        spikes_NH: any number of zeros.
        weight_GH: the weight.
        in_order: add up the products of every row in the order of the presynaptic neurons, so
            that a row's result depends on nothing else in the batch.
    """
    if not (in_order or is_sparse(spikes_NH)):
        return dense_product(spikes_NH, weight_GH.T)
    num_rows, num_inputs = spikes_NH.shape
    num_outputs = weight_GH.shape[0]
    out = torch.empty(num_rows, num_outputs)
    spikes, to = flat(spikes_NH), flat(out)
    packed = tiles(weight_GH.T, cpu_products.GATHER_WIDTH)
    shape = (num_inputs, num_outputs)
    kernel = cpu_spike_linear.spikes_times_weight
    threads.run([partial(kernel, spikes, *part, shape, packed, to) for part in _parts(num_rows)])
    return out


def weight_gradient(spikes_NH: Tensor, grad_NG: Tensor) -> Tensor:
    """``g^T Y``, (G, H), float32."""
    if not is_sparse(spikes_NH):
        return dense_weight_gradient(grad_NG, spikes_NH)
    num_rows, num_inputs = spikes_NH.shape
    num_outputs = grad_NG.shape[1]
    width = cpu_products.GATHER_WIDTH
    num_tiles = (num_outputs + width - 1) // width
    parts = _parts(num_rows)
    sums = torch.zeros(len(parts), num_tiles, num_inputs, width)
    spikes, grad = flat(spikes_NH), flat(grad_NG)
    shape = (num_inputs, num_outputs)
    kernel = cpu_spike_linear.add_weight_gradient
    threads.run(
        [
            partial(kernel, spikes, grad, *part, shape, flat(own))
            for part, own in zip(parts, sums, strict=True)
        ]
    )
    total = sums.sum(0).transpose(1, 2).reshape(num_tiles * width, num_inputs)
    return total[:num_outputs].contiguous()
