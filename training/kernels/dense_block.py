"""The innermost part of a dense product in numba: a block of sums that stay in registers.

Written for any number of rows and vectors, because the best shape follows from the machine's
registers: enough sums that none waits for the one before, few enough that all stay.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from training.kernels.simd import (
    FLOATS,
    LANES,
    VECTOR,
    array_data,
    broadcast,
    call_of_llvm,
    load_vector,
    store_vector,
)

_INTP = ir.IntType(64)


class Block(NamedTuple):
    """Which part of a dense product is computed."""

    first: int  # first of the rows
    last: int  # the last row there is; rows beyond repeat it
    k: int  # column of the left side to begin at
    tile: int  # position of the weight's first row
    depth: int  # how many of its rows
    to: int  # position of the first row of sums
    stride: int  # floats between rows of sums
    is_added: bool  # whether to add to what is there


class _Sums:
    """Sums of ``num_rows`` by ``num_vectors``, and where they go."""

    def __init__(self, builder: Any, num_rows: int, num_vectors: int) -> None:
        self.builder = builder
        self.cells = list(product(range(num_rows), range(num_vectors)))
        self.sums = {cell: cgutils.alloca_once(builder, FLOATS) for cell in self.cells}

    def clear(self) -> None:
        for cell in self.cells:
            self.builder.store(ir.Constant(FLOATS, [0.0] * LANES), self.sums[cell])

    def read(self, out: Any, stride: Any) -> None:
        for cell, address in self._addresses(out, stride):
            self.builder.store(load_vector(self.builder, address, FLOATS, 4), self.sums[cell])

    def write(self, out: Any, stride: Any) -> None:
        for cell, address in self._addresses(out, stride):
            store_vector(self.builder, address, self.builder.load(self.sums[cell]), 4)

    def _addresses(self, out: Any, stride: Any) -> Iterator[tuple[tuple[int, int], Any]]:
        for row, vector in self.cells:
            first = self.builder.mul(stride, _INTP(row))
            at = self.builder.add(first, _INTP(vector * LANES))
            yield (row, vector), self.builder.gep(out, [at])

    def add_products(self, lefts: list[Any], rights: list[Any]) -> None:
        """``sums[r, v] += lefts[r] * rights[v]``."""
        for row, vector in self.cells:
            total = self.sums[row, vector]
            factors = (lefts[row], rights[vector], self.builder.load(total))
            product = call_of_llvm(self.builder, f"fmuladd.{VECTOR}", FLOATS, *factors)
            self.builder.store(product, total)


def _row_addresses(builder: Any, left: Any, starts: Any, block: Block, num_rows: int) -> list[Any]:
    """Where column ``k`` of each row of the left side is."""
    rows = []
    for row in range(num_rows):
        index = builder.add(block.first, _INTP(row))
        index = builder.select(builder.icmp_signed("<", index, block.last), index, block.last)
        start = builder.load(builder.gep(starts, [index]))
        rows.append(builder.gep(left, [builder.add(start, block.k)]))
    return rows


def dense_block(num_rows: int, num_vectors: int) -> Callable[..., None]:
    """A compiled function that multiplies some rows by a tile of as many vectors.

    Its arguments: ``left`` flat, ``starts`` of its rows, ``weight`` flat, ``out`` flat, and the
    ``Block``.
    """

    @intrinsic
    def multiply_rows(typing_context, left, starts, weight, out, block):  # type: ignore[no-untyped-def]
        signature = types.void(left, starts, weight, out, block)

        def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
            left_at, starts_at, weights_at, outs_at = (
                array_data(context, builder, kind, value)
                for kind, value in zip(signature.args[:4], args[:4], strict=True)
            )
            block = Block(*cgutils.unpack_tuple(builder, args[4]))
            rows = _row_addresses(builder, left_at, starts_at, block, num_rows)
            out_at = builder.gep(outs_at, [block.to])
            sums = _Sums(builder, num_rows, num_vectors)
            with builder.if_else(block.is_added) as (added, written):
                with added:
                    sums.read(out_at, block.stride)
                with written:
                    sums.clear()
            weight_at = builder.gep(weights_at, [block.tile])
            with cgutils.for_range(builder, block.depth) as loop:
                begin = builder.mul(loop.index, _INTP(num_vectors * LANES))
                rights = [
                    load_vector(builder, builder.gep(weight_at, [at]), FLOATS, 4)
                    for at in (
                        builder.add(begin, _INTP(vector * LANES)) for vector in range(num_vectors)
                    )
                ]
                lefts = [
                    broadcast(builder, builder.load(builder.gep(row, [loop.index])), FLOATS)
                    for row in rows
                ]
                sums.add_products(lefts, rights)
            sums.write(out_at, block.stride)
            return context.get_dummy_value()

        return signature, build

    return multiply_rows  # type: ignore[no-any-return]
