"""Sixteen small integers at a time in numba: products of 8-bit weights with spike levels.

``Shorts`` is a vector of sixteen int16 lanes. 8-bit weights are widened as they are loaded, so a
product with a level of up to 127 fits, and a few products may be summed before the sums must be
carried on in 32 bits (``add_to_ints``). Arrays are flat; positions are element offsets.
"""

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

SHORT_LANES = 16

_INT32 = ir.IntType(32)
_BYTES = ir.VectorType(ir.IntType(8), SHORT_LANES)
_SHORTS = ir.VectorType(ir.IntType(16), SHORT_LANES)
_INTS = ir.VectorType(_INT32, SHORT_LANES)


class ShortsType(types.Type):  # type: ignore[misc]
    """Sixteen int16 lanes."""

    def __init__(self) -> None:
        super().__init__(name="Shorts")


Shorts = ShortsType()


@register_model(ShortsType)
class _ShortsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _SHORTS)


def _address(context: Any, builder: Any, array_type: Any, array: Any, position: Any) -> Any:
    struct = cgutils.create_struct_proxy(array_type)(context, builder, value=array)
    return builder.gep(struct.data, [position])


@intrinsic
def load_bytes(typing_context, array, position):  # type: ignore[no-untyped-def]
    """Read sixteen int8 values, widened."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        address = _address(context, builder, signature.args[0], *args)
        value = builder.load(builder.bitcast(address, _BYTES.as_pointer()))
        value.align = 1
        return builder.sext(value, _SHORTS)

    return Shorts(array, types.intp), build


@intrinsic
def splat_short(typing_context, value):  # type: ignore[no-untyped-def]
    """The same int16 in every lane."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        undefined = ir.Constant(_SHORTS, ir.Undefined)
        single = builder.insert_element(undefined, args[0], ir.Constant(_INT32, 0))
        return builder.shuffle_vector(single, undefined, ir.Constant(_INTS, [0] * SHORT_LANES))

    return Shorts(types.int16), build


@intrinsic
def add_to_ints(typing_context, array, position, value):  # type: ignore[no-untyped-def]
    """Add sixteen lanes, widened, to sixteen int32 values in memory."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        address = _address(context, builder, signature.args[0], args[0], args[1])
        pointer = builder.bitcast(address, _INTS.as_pointer())
        before = builder.load(pointer)
        before.align = 4
        after = builder.add(before, builder.sext(args[2], _INTS))
        builder.store(after, pointer).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, Shorts), build


def _arithmetic(python_operator: Any, instruction: str) -> None:
    @intrinsic
    def operation(typing_context, left, right):  # type: ignore[no-untyped-def]
        def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return getattr(builder, instruction)(*args)

        return Shorts(Shorts, Shorts), build

    @overload(python_operator)
    def _overloaded(left, right):  # type: ignore[no-untyped-def]
        if isinstance(left, ShortsType) and isinstance(right, ShortsType):
            return lambda left, right: operation(left, right)
        return None


_arithmetic(operator.add, "add")
_arithmetic(operator.mul, "mul")
