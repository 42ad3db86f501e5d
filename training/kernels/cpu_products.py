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

from typing import NamedTuple

import numpy as np

from training.kernels.cpu_firing import CACHE_LINE, ZERO, read
from training.kernels.cpu_layer import Array
from training.kernels.dense_block import Block, dense_block
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


class NonZeros(NamedTuple):
    """Lists of the non-zeros of rows, as many of a row as it has columns at most."""

    indices: Array
    values: Array  # the floats there


class LeftRows(NamedTuple):
    """The left side of a dense product."""

    values: Array  # flat floats
    starts: Array  # where each row begins
    num_rows: int
    depth: int  # floats of a row that take part


class Tiles(NamedTuple):
    """The right side of a dense product, in tiles of ``DENSE_WIDTH`` columns."""

    values: Array  # flat floats (tiles, depth, DENSE_WIDTH)
    num_tiles: int
    depth: int  # rows of a tile, of which those of ``LeftRows.depth`` take part


class RecurrentProduct(NamedTuple):
    """Scratch of the products of rows with a recurrent weight."""

    rows: Array  # the products, ``stride`` apart
    stride: int  # room for a row, whichever way it is computed
    starts: Array  # where each row of the left side begins
    nonzeros: NonZeros  # of the rows of spikes, where these are few; forward only
    counts: Array  # how many of each row


def aligned_zeros(size: int) -> Array:
    """So many zeros, beginning with a cache line: no vector lies across two."""
    room = np.zeros(size + CACHE_LINE // 4, np.float32)
    start = (-room.ctypes.data % CACHE_LINE) // 4
    return room[start : start + size]


def forward_product(num_rows: int, num_neurons: int) -> RecurrentProduct:
    """Scratch for ``Y U^T`` of so many utterances."""
    room = num_rows + DENSE_ROWS
    widths = (-(-2 * num_neurons // width) * width for width in (GATHER_WIDTH, DENSE_WIDTH))
    stride = max(widths) + LANES
    nonzeros = NonZeros(
        np.empty(room * num_neurons, np.int32), np.empty(room * num_neurons, np.float32)
    )
    starts, counts = np.empty(room, np.int64), np.empty(room, np.int64)
    return RecurrentProduct(aligned_zeros(room * stride), stride, starts, nonzeros, counts)


def backward_product(num_rows: int, num_neurons: int) -> RecurrentProduct:
    """Scratch for ``gp U`` of so many utterances."""
    room = num_rows + DENSE_ROWS
    stride = -(-num_neurons // DENSE_WIDTH) * DENSE_WIDTH
    nothing = NonZeros(np.empty(0, np.int32), np.empty(0, np.float32))
    starts, counts = np.empty(room, np.int64), np.empty(0, np.int64)
    return RecurrentProduct(aligned_zeros(room * stride), stride, starts, nothing, counts)


@helper(allocates=False)
def num_dense_tiles(num_columns):  # type: ignore[no-untyped-def]
    """Tiles of ``DENSE_WIDTH`` columns."""
    return (num_columns + DENSE_WIDTH - 1) // DENSE_WIDTH


@helper(allocates=False)
def nonzero_lanes(array, position, count):  # type: ignore[no-untyped-def]
    """Bits of the non-zeros among a vector of a row with ``count`` left."""
    return pack_bits(differs(read(array, position, count), splat(ZERO)))


@helper(allocates=False)
def count_nonzeros(array, start, count):  # type: ignore[no-untyped-def]
    """How many floats of a row are not 0."""
    found = 0
    for h in range(0, count, LANES):
        found += count_bits(nonzero_lanes(array, start + h, count - h))
    return found


@helper(allocates=False)
def list_nonzeros(array, start, count, found_in, at):  # type: ignore[no-untyped-def]
    """Write column and value of the non-zeros of a row, from ``at`` on; returns how many."""
    found = at
    for h in range(0, count, LANES):
        bits = nonzero_lanes(array, start + h, count - h)
        while bits != 0:
            position = h + lowest_bit(bits)
            found_in.indices[found] = position
            found_in.values[found] = array[start + position]
            found += 1
            bits = bits & (bits - np.uint64(1))
    return found - at


@helper(allocates=False)
def gather(weight, tile, nonzeros, at, count, out, to, is_added):  # type: ignore[no-untyped-def]
    """Add up the rows of a tile for the ``count`` non-zeros from ``at`` on.

    ``out[to:to+GATHER_WIDTH] = sum_n values[n] weight[tile + GATHER_WIDTH indices[n]]``, or added.
    """
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
        row = tile + GATHER_WIDTH * np.int64(nonzeros.indices[n])
        value = splat(nonzeros.values[n])
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


@helper(allocates=False)
def multiply(left, tiles, out, stride, is_added):  # type: ignore[no-untyped-def]
    """Dense product of ``LeftRows`` and ``Tiles`` into rows of ``out``, ``stride`` apart.

    ``is_added`` adds to ``out``, which needs room for ``left.num_rows`` rounded up to
    ``DENSE_ROWS``; the rows in excess repeat the last.
    """
    for n in range(tiles.num_tiles):
        for k in range(0, left.depth, DENSE_DEPTH):
            tile = (n * tiles.depth + k) * DENSE_WIDTH
            for i in range(0, left.num_rows, DENSE_ROWS):
                block = Block(
                    i,
                    left.num_rows - 1,
                    k,
                    tile,
                    min(DENSE_DEPTH, left.depth - k),
                    i * stride + n * DENSE_WIDTH,
                    stride,
                    is_added or k > 0,
                )
                multiply_rows(left.values, left.starts, tiles.values, out, block)
