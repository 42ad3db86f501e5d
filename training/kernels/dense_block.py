"""The innermost part of a dense product in numba: a block of sums that stay in registers.

Written for any number of rows and vectors, because the best shape follows from the machine's
registers: enough sums that none waits for the one before, few enough that all stay.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from training.kernels.simd import FLOATS, LANES, VECTOR, array_data, broadcast

_INTP = ir.IntType(64)


class _Block:
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
            self.builder.store(load(self.builder, address), self.sums[cell])

    def write(self, out: Any, stride: Any) -> None:
        for cell, address in self._addresses(out, stride):
            self.builder.store(self.builder.load(self.sums[cell]), address).align = 4

    def _addresses(self, out: Any, stride: Any) -> Iterator[tuple[tuple[int, int], Any]]:
        for row, vector in self.cells:
            first = self.builder.mul(stride, _INTP(row))
            at = self.builder.gep(out, [self.builder.add(first, _INTP(vector * LANES))])
            yield (row, vector), self.builder.bitcast(at, FLOATS.as_pointer())

    def add_products(self, lefts: list[Any], rights: list[Any]) -> None:
        """``sums[r, v] += lefts[r] * rights[v]``."""
        multiply_add = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(FLOATS, [FLOATS] * 3), f"llvm.fmuladd.{VECTOR}"
        )
        for row, vector in self.cells:
            total = self.sums[row, vector]
            factors = [lefts[row], rights[vector], self.builder.load(total)]
            self.builder.store(self.builder.call(multiply_add, factors), total)


def load(builder: Any, address: Any) -> Any:
    """Read a vector that lies anywhere."""
    value = builder.load(address)
    value.align = 4
    return value


def dense_block(num_rows: int, num_vectors: int) -> Callable[..., None]:
    """A compiled function that multiplies some rows by a tile of as many vectors.

    Its arguments: ``left`` flat, ``starts`` of its rows, the ``first`` row to take and the
    ``last`` there is (rows beyond repeat it), the column ``k`` of ``left`` to begin at;
    ``weight`` flat, position ``tile`` of its first row, how much ``depth``; ``out`` flat, position
    ``to`` of the first row and the ``stride`` between rows, and whether sums are added to it.
    """

    @intrinsic
    def multiply_rows(  # type: ignore[no-untyped-def]
        typing_context,
        left,
        starts,
        first,
        last,
        k,
        weight,
        tile,
        depth,
        out,
        to,
        stride,
        is_added,
    ):
        position = types.intp
        signature = types.void(
            left,
            starts,
            *(position,) * 3,
            weight,
            *(position,) * 2,
            out,
            *(position,) * 2,
            types.boolean,
        )

        def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
            _, _, first, last, k, _, tile, depth, _, to, stride, is_added = args
            pointers = {
                name: array_data(context, builder, signature.args[index], args[index])
                for name, index in (("left", 0), ("starts", 1), ("weight", 5), ("out", 8))
            }
            rows = []
            for row in range(num_rows):
                index = builder.add(first, _INTP(row))
                index = builder.select(builder.icmp_signed("<", index, last), index, last)
                start = builder.load(builder.gep(pointers["starts"], [index]))
                rows.append(builder.gep(pointers["left"], [builder.add(start, k)]))
            out_at = builder.gep(pointers["out"], [to])
            block = _Block(builder, num_rows, num_vectors)
            with builder.if_else(is_added) as (added, written):
                with added:
                    block.read(out_at, stride)
                with written:
                    block.clear()
            weight_at = builder.gep(pointers["weight"], [tile])
            with cgutils.for_range(builder, depth) as loop:
                begin = builder.mul(loop.index, _INTP(num_vectors * LANES))
                rights = [
                    load(builder, builder.bitcast(address, FLOATS.as_pointer()))
                    for address in (
                        builder.gep(weight_at, [builder.add(begin, _INTP(vector * LANES))])
                        for vector in range(num_vectors)
                    )
                ]
                lefts = [
                    broadcast(builder, builder.load(builder.gep(row, [loop.index])), FLOATS)
                    for row in rows
                ]
                block.add_products(lefts, rights)
            block.write(out_at, stride)
            return context.get_dummy_value()

        return signature, build

    return multiply_rows  # type: ignore[no-any-return]
