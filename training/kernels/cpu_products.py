"""Matrix products of the recurrent layer on the CPU, sparse and dense.

A thread multiplies few rows (its share of the utterances) by a whole weight at every frame.
The weight is packed once per pass into column tiles that fit the second-level cache:

- ``gather``: spikes are mostly 0, so add up the weight rows of the non-zero ones. A tile is
  eight vectors wide, all of it accumulated in registers: one addition of a weight per
  non-zero, nothing for zeros.
- ``multiply_rows``: the dense product, some rows by some vectors in registers.

``SPARSE_BELOW`` is where they meet, the same for products of many rows: with vectors of sixteen
lanes the dense product gains most.
"""

import numpy as np

from training.kernels.cpu_firing import ZERO, read
from training.kernels.dense_block import dense_block
from training.kernels.jit import helper
from training.kernels.lanes import WIDE
from training.kernels.simd import (
    LANES,
    count_bits,
    differs,
    fused_multiply_add,
    load,
    lowest_bit,
    pack_bits,
    splat,
    store,
)

GATHER_WIDTH = 8 * LANES
# Sums that stay in registers, of which there are 32 of sixteen lanes, and 16 of eight.
DENSE_ROWS, DENSE_VECTORS = (8, 2) if LANES == WIDE else (4, 3)
DENSE_WIDTH = DENSE_VECTORS * LANES
# So much of a tile stays in the first-level cache (16 or 24 kB) while all rows pass over it.
DENSE_DEPTH = 2048 // LANES
SPARSE_BELOW = 0.3 if LANES == WIDE else 0.5

multiply_rows = dense_block(DENSE_ROWS, DENSE_VECTORS)


@helper
def nonzero_lanes(array, position, count):  # type: ignore[no-untyped-def]
    """Bits of the non-zeros among a vector of a row with ``count`` left."""
    return pack_bits(differs(read(array, position, count), splat(ZERO)))


@helper
def count_nonzeros(array, start, count):  # type: ignore[no-untyped-def]
    """How many floats of a row are not 0."""
    found = 0
    for h in range(0, count, LANES):
        found += count_bits(nonzero_lanes(array, start + h, count - h))
    return found


@helper
def list_nonzeros(array, start, count, indices, values, at):  # type: ignore[no-untyped-def]
    """Write position and value of the non-zeros of a row; returns how many."""
    found = at
    for h in range(0, count, LANES):
        bits = nonzero_lanes(array, start + h, count - h)
        while bits != 0:
            position = h + lowest_bit(bits)
            indices[found] = position
            values[found] = array[start + position]
            found += 1
            bits = bits & (bits - np.uint64(1))
    return found - at


@helper
def gather(weight, tile, indices, values, at, count, out, to, is_added):  # type: ignore[no-untyped-def]
    """``out[to:to+64] = sum_n values[n] * weight[tile + 64 indices[n]]``, or added to it."""
    if is_added:
        sum0 = load(out, to)
        sum1 = load(out, to + LANES)
        sum2 = load(out, to + 2 * LANES)
        sum3 = load(out, to + 3 * LANES)
        sum4 = load(out, to + 4 * LANES)
        sum5 = load(out, to + 5 * LANES)
        sum6 = load(out, to + 6 * LANES)
        sum7 = load(out, to + 7 * LANES)
    else:
        sum0 = sum1 = sum2 = sum3 = sum4 = sum5 = sum6 = sum7 = splat(ZERO)
    for n in range(at, at + count):
        row = tile + GATHER_WIDTH * np.int64(indices[n])
        value = splat(values[n])
        sum0 = fused_multiply_add(value, load(weight, row), sum0)
        sum1 = fused_multiply_add(value, load(weight, row + LANES), sum1)
        sum2 = fused_multiply_add(value, load(weight, row + 2 * LANES), sum2)
        sum3 = fused_multiply_add(value, load(weight, row + 3 * LANES), sum3)
        sum4 = fused_multiply_add(value, load(weight, row + 4 * LANES), sum4)
        sum5 = fused_multiply_add(value, load(weight, row + 5 * LANES), sum5)
        sum6 = fused_multiply_add(value, load(weight, row + 6 * LANES), sum6)
        sum7 = fused_multiply_add(value, load(weight, row + 7 * LANES), sum7)
    store(out, to, sum0)
    store(out, to + LANES, sum1)
    store(out, to + 2 * LANES, sum2)
    store(out, to + 3 * LANES, sum3)
    store(out, to + 4 * LANES, sum4)
    store(out, to + 5 * LANES, sum5)
    store(out, to + 6 * LANES, sum6)
    store(out, to + 7 * LANES, sum7)


@helper
def multiply(  # type: ignore[no-untyped-def]
    left, starts, count, depth, tile_depth, weight, num_tiles, out, stride, is_added
):
    """Dense product of ``count`` rows of ``left`` into rows of ``out``, ``stride`` apart.

    ``depth`` of the ``tile_depth`` rows of each tile take part; ``is_added`` adds to ``out``.
    ``out`` needs room for ``count`` rounded up to ``DENSE_ROWS``; the rows in excess repeat the
    last.
    """
    last = count - 1
    for n in range(num_tiles):
        for k in range(0, depth, DENSE_DEPTH):
            tile = (n * tile_depth + k) * DENSE_WIDTH
            for i in range(0, count, DENSE_ROWS):
                multiply_rows(
                    left,
                    starts,
                    i,
                    last,
                    k,
                    weight,
                    tile,
                    min(DENSE_DEPTH, depth - k),
                    out,
                    i * stride + n * DENSE_WIDTH,
                    stride,
                    is_added or k > 0,
                )
