"""CPU kernels of a matrix product whose left side is spikes: forward, and weight gradient.

Both add up rows for the non-zero spikes only (``cpu_products.gather``), over blocks of frames
small enough that a column tile of the other operand stays in the second-level cache.

Shape legend: N frames, H presynaptic neurons, G outputs, K column tiles of ``GATHER_WIDTH``.
"""

import numpy as np

from training.kernels.cpu_firing import aligned, read, write
from training.kernels.cpu_products import (
    GATHER_WIDTH,
    NonZeros,
    gather,
    list_nonzeros,
    nonzero_lanes,
)
from training.kernels.jit import helper, kernel
from training.kernels.simd import LANES, load, lowest_bit, store

FORWARD_BLOCK = 256
GRADIENT_BLOCK = 1024 // LANES


@kernel
def spikes_times_weight(spikes, first, last, shape, weight, out):  # type: ignore[no-untyped-def]
    """``out[n] = sum_h spikes[n, h] weight[h]`` for frames ``first`` to ``last``.

    Args:
        spikes: (N, H), flat.
        first: first frame of this call.
        last: frame after its last one.
        shape: H, G.
        weight: (K, H, GATHER_WIDTH), flat, zero-padded.
        out: (N, G), flat, written.
    """
    num_inputs, num_outputs = shape
    nonzeros = NonZeros(
        np.empty(FORWARD_BLOCK * num_inputs, np.int32),
        np.empty(FORWARD_BLOCK * num_inputs, np.float32),
    )
    counts = np.empty(FORWARD_BLOCK, np.int64)
    tile_row = aligned(GATHER_WIDTH)
    for start in range(first, last, FORWARD_BLOCK):
        block = min(FORWARD_BLOCK, last - start)
        for i in range(block):
            row = (start + i) * num_inputs
            counts[i] = list_nonzeros(spikes, row, num_inputs, nonzeros, i * num_inputs)
        for column in range(0, num_outputs, GATHER_WIDTH):
            tile = column * num_inputs
            left = num_outputs - column
            for i in range(block):
                to = (start + i) * num_outputs + column
                at = i * num_inputs
                if left >= GATHER_WIDTH:
                    gather(weight, tile, nonzeros, at, counts[i], out, to, False)
                else:
                    gather(weight, tile, nonzeros, at, counts[i], tile_row, 0, False)
                    for g in range(0, left, LANES):
                        write(out, to + g, left - g, load(tile_row, g))


@helper
def list_by_column(spikes, start, block, num_inputs, nonzeros, counts):  # type: ignore[no-untyped-def]
    """Non-zeros of a block of frames, listed by presynaptic neuron."""
    counts[:] = 0
    for i in range(block):
        row = (start + i) * num_inputs
        for h in range(0, num_inputs, LANES):
            bits = nonzero_lanes(spikes, row + h, num_inputs - h)
            while bits != 0:
                position = h + lowest_bit(bits)
                to = position * GRADIENT_BLOCK + counts[position]
                nonzeros.indices[to] = i
                nonzeros.values[to] = spikes[row + position]
                counts[position] += 1
                bits = bits & (bits - np.uint64(1))


@helper
def copy_tile(grad, start, block, num_outputs, column, tile):  # type: ignore[no-untyped-def]
    """Columns ``column`` to ``column + 64`` of a block of frames, zero beyond the last output."""
    for i in range(block):
        row = (start + i) * num_outputs + column
        for g in range(0, GATHER_WIDTH, LANES):
            left = max(num_outputs - column - g, 0)
            store(tile, i * GATHER_WIDTH + g, read(grad, row + g, left))


@kernel
def add_weight_gradient(spikes, grad, first, last, shape, grad_weight):  # type: ignore[no-untyped-def]
    """``grad_weight[h] += sum_n spikes[n, h] grad[n]`` over frames ``first`` to ``last``.

    Args:
        spikes: (N, H), flat.
        grad: (N, G), flat.
        first: first frame of this call.
        last: frame after its last one.
        shape: H, G.
        grad_weight: (K, H, GATHER_WIDTH), flat, added to.
    """
    num_inputs, num_outputs = shape
    nonzeros = NonZeros(
        np.empty(num_inputs * GRADIENT_BLOCK, np.int32),
        np.empty(num_inputs * GRADIENT_BLOCK, np.float32),
    )
    counts = np.empty(num_inputs, np.int64)
    tile = aligned(GRADIENT_BLOCK * GATHER_WIDTH)
    for start in range(first, last, GRADIENT_BLOCK):
        block = min(GRADIENT_BLOCK, last - start)
        list_by_column(spikes, start, block, num_inputs, nonzeros, counts)
        for column in range(0, num_outputs, GATHER_WIDTH):
            copy_tile(grad, start, block, num_outputs, column, tile)
            for h in range(num_inputs):
                to = column * num_inputs + h * GATHER_WIDTH
                at = h * GRADIENT_BLOCK
                gather(tile, 0, nonzeros, at, counts[h], grad_weight, to, True)
