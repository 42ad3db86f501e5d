"""CPU kernels of dense products with many rows: ``A B``, and ``A^T B`` summed over the rows.

They are ``cpu_products.multiply`` over blocks of rows that stay in the second-level cache. A BLAS
would do; the one in PyTorch (MKL) makes half this speed on AMD processors with AVX-512.

Shape legend: N rows, K columns of the left side, M columns of the right side.
"""

import numpy as np

from training.kernels.cpu_firing import ZERO, aligned, read, write
from training.kernels.cpu_products import DENSE_ROWS, DENSE_WIDTH, LeftRows, Tiles, multiply
from training.kernels.jit import helper, kernel
from training.kernels.simd import LANES, load, store

PRODUCT_BLOCK = 128
GRADIENT_BLOCK = 256
ROWS_AT_ONCE = 8


@helper
def copy_row(source, at, count, target, to):  # type: ignore[no-untyped-def]
    """Copy ``count`` floats; ``source`` has room behind them for a whole vector."""
    for h in range(0, count, LANES):
        write(target, to + h, count - h, load(source, at + h))


@helper
def copy_tiles(right, start, block, num_columns, tiles):  # type: ignore[no-untyped-def]
    """A block of rows as column tiles (tiles, GRADIENT_BLOCK, DENSE_WIDTH), zero-padded.

    A few rows at a time, so that memory is read in as many streams.
    """
    for top in range(0, block, ROWS_AT_ONCE):
        for column in range(0, num_columns, DENSE_WIDTH):
            for i in range(top, min(top + ROWS_AT_ONCE, block)):
                row = (start + i) * num_columns + column
                to = column * GRADIENT_BLOCK + i * DENSE_WIDTH
                for m in range(0, DENSE_WIDTH, LANES):
                    left = max(num_columns - column - m, 0)
                    store(tiles, to + m, read(right, row + m, left))


@helper
def transpose(left, start, block, num_columns, first, last, transposed):  # type: ignore[no-untyped-def]
    """Columns ``first`` to ``last`` of a block of rows as rows, GRADIENT_BLOCK apart."""
    for i in range(block):
        row = (start + i) * num_columns
        for k in range(first, last):
            transposed[(k - first) * GRADIENT_BLOCK + i] = left[row + k]


@kernel
def product(left, first, last, shape, right, out):  # type: ignore[no-untyped-def]
    """``out[n] = left[n] B`` for rows ``first`` to ``last``.

    Args:
        left: (N, K), flat.
        first: first row of this call.
        last: row after its last one.
        shape: K, M.
        right: B in tiles of ``DENSE_WIDTH`` columns, flat, zero-padded.
        out: (N, M), flat, written.
    """
    depth, num_columns = shape
    num_tiles = (num_columns + DENSE_WIDTH - 1) // DENSE_WIDTH
    stride = num_tiles * DENSE_WIDTH
    rows = aligned((PRODUCT_BLOCK + DENSE_ROWS) * stride)
    starts = np.empty(PRODUCT_BLOCK, np.int64)
    for start in range(first, last, PRODUCT_BLOCK):
        block = min(PRODUCT_BLOCK, last - start)
        for i in range(block):
            starts[i] = (start + i) * depth
        rows_of_block = LeftRows(left, starts, block, depth)
        multiply(rows_of_block, Tiles(right, num_tiles, depth), rows, stride, False)
        for i in range(block):
            copy_row(rows, i * stride, num_columns, out, (start + i) * num_columns)


@kernel
def transposed_product(left, right, num_rows, first, last, shape, out):  # type: ignore[no-untyped-def]
    """``out[k] = sum_n left[n, k] right[n]`` for columns ``first`` to ``last`` of the left side.

    Args:
        left: (N, K), flat.
        right: (N, M), flat.
        num_rows: N.
        first: first column of this call.
        last: column after its last one.
        shape: K, M.
        out: (K, M), flat, written.
    """
    num_left, num_right = shape
    count = last - first
    num_tiles = (num_right + DENSE_WIDTH - 1) // DENSE_WIDTH
    stride = num_tiles * DENSE_WIDTH
    sums = aligned((count + DENSE_ROWS) * stride)
    sums[:] = ZERO
    transposed = aligned(count * GRADIENT_BLOCK)
    tiles = aligned(stride * GRADIENT_BLOCK)
    starts = np.arange(count) * GRADIENT_BLOCK
    for start in range(0, num_rows, GRADIENT_BLOCK):
        block = min(GRADIENT_BLOCK, num_rows - start)
        transpose(left, start, block, num_left, first, last, transposed)
        copy_tiles(right, start, block, num_right, tiles)
        columns = LeftRows(transposed, starts, count, block)
        multiply(columns, Tiles(tiles, num_tiles, GRADIENT_BLOCK), sums, stride, True)
    for k in range(count):
        copy_row(sums, k * stride, num_right, out, (first + k) * num_right)
