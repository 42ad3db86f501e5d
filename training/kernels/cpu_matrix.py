"""Products of spikes with a matrix on CPU tensors: sparse where spikes are, else dense.

Shape legend: N frames, H presynaptic neurons, G outputs.
"""

import itertools
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad

from training.kernels import cpu_dense, cpu_products, cpu_spike_linear, threads
from training.kernels.cpu_layer import Array

# Sparse sums of a weight's gradient read a tile that stays in the first-level cache.
GRADIENT_SPARSE_BELOW = 0.6
SAMPLED_ROWS = 512
MIN_ROWS = 64


def flat(tensor: Tensor) -> Array:
    """The tensor's memory as a flat array; a copy only if it is not contiguous."""
    return tensor.detach().contiguous().reshape(-1).numpy()


def tiles(matrix: Tensor, width: int) -> Array:
    """A (rows, columns) weight as column tiles (tiles, rows, width), zero-padded, flat."""
    rows, columns = matrix.shape
    padded = pad(matrix.detach(), (0, -columns % width))
    return flat(padded.view(rows, -1, width).transpose(0, 1))


def is_sparse(spikes_NH: Tensor, below: float) -> bool:
    """Whether few enough of a sample of the rows' entries are non-zero."""
    num_rows = spikes_NH.shape[0]
    if num_rows < MIN_ROWS or spikes_NH.shape[1] < cpu_products.GATHER_WIDTH:
        return False
    sample = spikes_NH[:: max(1, num_rows // SAMPLED_ROWS)]
    return int(torch.count_nonzero(sample)) <= below * sample.numel()


def _parts(num_rows: int, fewest: int = MIN_ROWS) -> list[tuple[int, int]]:
    """Shares of the threads, each of at least so many rows."""
    count = max(1, min(threads.num_threads(), num_rows // fewest))
    cuts = [num_rows * part // count for part in range(count + 1)]
    return list(itertools.pairwise(cuts))


def dense_product(left_NK: Tensor, right_KM: Tensor) -> Tensor:
    """``left @ right`` of many rows, (N, M)."""
    if left_NK.shape[0] < MIN_ROWS:
        with torch.autocast("cpu", enabled=False):
            return torch.mm(left_NK, right_KM)
    num_rows, num_columns = left_NK.shape[0], right_KM.shape[1]
    out = torch.empty(num_rows, num_columns)
    left, to = flat(left_NK), flat(out)
    packed = tiles(right_KM, cpu_products.DENSE_WIDTH)
    shape = (left_NK.shape[1], num_columns)
    kernel = cpu_dense.product
    threads.run([partial(kernel, left, *part, shape, packed, to) for part in _parts(num_rows)])
    return out


def dense_weight_gradient(left_NK: Tensor, right_NM: Tensor) -> Tensor:
    """``left^T @ right`` summed over many rows, (K, M)."""
    (num_rows, num_left), num_right = left_NK.shape, right_NM.shape[1]
    if num_rows < MIN_ROWS:
        with torch.autocast("cpu", enabled=False):
            return torch.mm(left_NK.T, right_NM)
    out = torch.empty(num_left, num_right)
    left, right, to = flat(left_NK), flat(right_NM), flat(out)
    shape = (num_left, num_right)
    kernel = cpu_dense.transposed_product
    parts = _parts(num_left, 1)
    threads.run([partial(kernel, left, right, num_rows, *part, shape, to) for part in parts])
    return out


def times_weight(spikes_NH: Tensor, weight_GH: Tensor, in_order: bool) -> Tensor:
    """``Y W^T``, (N, G), float32.

    Args:
        spikes_NH: any number of zeros.
        in_order: add up the products of every row in the order of the presynaptic neurons, so
            that a row's result depends on nothing else in the batch.
    """
    if not (in_order or is_sparse(spikes_NH, cpu_products.SPARSE_BELOW)):
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
    if not is_sparse(spikes_NH, GRADIENT_SPARSE_BELOW):
        return dense_weight_gradient(spikes_NH, grad_NG).T.contiguous()
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
