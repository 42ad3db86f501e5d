"""Sixteen small integers at a time in numba: products of 8-bit weights with spike levels.

``Shorts`` is a vector of sixteen int16 lanes. 8-bit weights are widened as they are loaded, so a
product with a level of up to 127 fits, and a few products may be summed before the sums must be
carried on in 32 bits (``add_to_ints``). Arrays are flat; positions are element offsets.
"""

from typing import Any

from llvmlite import ir
from numba import types

from training.kernels.simd import (
    Vector,
    arithmetic,
    broadcast,
    instruction,
    load_vector,
    memory_instruction,
    store_vector,
)

SHORT_LANES = 16

_BYTES = ir.VectorType(ir.IntType(8), SHORT_LANES)
_SHORTS = ir.VectorType(ir.IntType(16), SHORT_LANES)
_INTS = ir.VectorType(ir.IntType(32), SHORT_LANES)

Shorts = Vector("i16", SHORT_LANES)


@memory_instruction(Shorts)
def load_bytes(builder: Any, address: Any) -> Any:
    """Read sixteen int8 values, widened."""
    return builder.sext(load_vector(builder, address, _BYTES, 1), _SHORTS)


@instruction(Shorts, types.int16)
def splat_short(builder: Any, value: Any) -> Any:
    """The same int16 in every lane."""
    return broadcast(builder, value, _SHORTS)


@memory_instruction(types.void, Shorts)
def add_to_ints(builder: Any, address: Any, value: Any) -> None:
    """Add sixteen lanes, widened, to sixteen int32 values in memory."""
    before = load_vector(builder, address, _INTS, 4)
    store_vector(builder, address, builder.add(before, builder.sext(value, _INTS)), 4)


arithmetic(Shorts, add="add", mul="mul")
