"""A vector of floats at a time in numba: a vector type for the CPU kernels.

LLVM's own vectoriser gives up on loops over as many arrays as a recurrence has (it would have
to prove or test that none overlap), and numba has no vector registers. So this module adds a
type of ``LANES`` float32 lanes, ``Floats``, and one of as many bits, ``Bits``, with the few
operations the kernels need. They are plain LLVM vector instructions, correct everywhere;
``lanes`` says how many lanes suit the machine.

Arrays are flat float32 or uint8; positions are element offsets.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic, models, overload, register_model

from training.kernels.lanes import WIDE, lanes_for


def _compiled_for() -> str:
    """What numba compiles for: ``NUMBA_CPU_FEATURES`` and ``NUMBA_ENABLE_AVX`` have a say."""
    features = config.CPU_FEATURES
    return str(get_host_cpu_features() if features is None else features)


LANES = lanes_for(_compiled_for())

FLOATS = ir.VectorType(ir.FloatType(), LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)
_INT32 = ir.IntType(32)
_INT32S = ir.VectorType(_INT32, LANES)
_PACKED = ir.IntType(LANES)
VECTOR = f"v{LANES}f32"


class FloatsType(types.Type):  # type: ignore[misc]
    """``LANES`` float32 lanes."""

    def __init__(self) -> None:
        super().__init__(name="Floats")


class BitsType(types.Type):  # type: ignore[misc]
    """``LANES`` truth values."""

    def __init__(self) -> None:
        super().__init__(name="Bits")


Floats = FloatsType()
Bits = BitsType()


@register_model(FloatsType)
class _FloatsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, FLOATS)


@register_model(BitsType)
class _BitsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _BITS)


def array_data(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    """Pointer to an array's first element."""
    return cgutils.create_struct_proxy(array_type)(context, builder, value=array).data


def _address(context: Any, builder: Any, array_type: Any, array: Any, position: Any) -> Any:
    return builder.gep(array_data(context, builder, array_type, array), [position])


def _constant(values: list[int]) -> Any:
    return ir.Constant(_INT32S, values)


def broadcast(builder: Any, value: Any, vector: Any) -> Any:
    """The same value in every lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    single = builder.insert_element(undefined, value, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(single, undefined, _constant([0] * LANES))


def _first_lanes(builder: Any, count: Any) -> Any:
    count = builder.trunc(count, _INT32)
    lanes = _constant(list(range(LANES)))
    return builder.icmp_signed("<", lanes, broadcast(builder, count, _INT32S))


@intrinsic
def load(typing_context, array, position):  # type: ignore[no-untyped-def]
    """Read a vector of floats."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        address = _address(context, builder, signature.args[0], *args)
        value = builder.load(builder.bitcast(address, FLOATS.as_pointer()))
        value.align = 4
        return value

    return Floats(array, types.intp), build


@intrinsic
def store(typing_context, array, position, value):  # type: ignore[no-untyped-def]
    """Write a vector of floats."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        address = _address(context, builder, signature.args[0], args[0], args[1])
        written = builder.store(args[2], builder.bitcast(address, FLOATS.as_pointer()))
        written.align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, Floats), build


@intrinsic
def load_first(typing_context, array, position, count):  # type: ignore[no-untyped-def]
    """Read the first ``count`` < ``LANES`` floats; the others are 0, their memory not touched."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        address = _address(context, builder, signature.args[0], args[0], args[1])
        pointer = builder.bitcast(address, FLOATS.as_pointer())
        function_type = ir.FunctionType(FLOATS, [FLOATS.as_pointer(), _INT32, _BITS, FLOATS])
        function = cgutils.get_or_insert_function(
            builder.module, function_type, f"llvm.masked.load.{VECTOR}.p0"
        )
        zero = ir.Constant(FLOATS, [0.0] * LANES)
        mask = _first_lanes(builder, args[2])
        return builder.call(function, [pointer, ir.Constant(_INT32, 4), mask, zero])

    return Floats(array, types.intp, types.intp), build


def _masked_store(builder: Any, base: Any, count: Any, value: Any) -> None:
    pointer = FLOATS.as_pointer()
    function_type = ir.FunctionType(ir.VoidType(), [FLOATS, pointer, _INT32, _BITS])
    function = cgutils.get_or_insert_function(
        builder.module, function_type, f"llvm.masked.store.{VECTOR}.p0"
    )
    mask = _first_lanes(builder, count)
    builder.call(function, [value, builder.bitcast(base, pointer), ir.Constant(_INT32, 4), mask])


@intrinsic
def store_first(typing_context, array, position, count, value):  # type: ignore[no-untyped-def]
    """Write the first ``count`` < ``LANES`` floats and leave the memory behind them alone."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        base = _address(context, builder, signature.args[0], args[0], args[1])
        if LANES == WIDE:
            _masked_store(builder, base, args[2], args[3])
            return context.get_dummy_value()
        # AVX2's masked store is slow on some processors.
        for lane in range(LANES - 1):
            index = ir.Constant(args[2].type, lane)
            with builder.if_then(builder.icmp_signed(">", args[2], index), likely=True):
                address = builder.gep(base, [index])
                lane_value = builder.extract_element(args[3], ir.Constant(_INT32, lane))
                builder.store(lane_value, address).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, Floats), build


@intrinsic
def splat(typing_context, value):  # type: ignore[no-untyped-def]
    """The same float in every lane."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return broadcast(builder, args[0], FLOATS)

    return Floats(types.float32), build


def _unary(name: str) -> Callable[..., Any]:
    @intrinsic
    def operation(typing_context, value):  # type: ignore[no-untyped-def]
        def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(FLOATS, [FLOATS]), f"llvm.{name}.{VECTOR}"
            )
            return builder.call(function, args)

        return Floats(Floats), build

    return operation  # type: ignore[no-any-return]


truncated = _unary("trunc")
magnitude = _unary("fabs")
rounded = _unary("rint")


@intrinsic
def fused_multiply_add(typing_context, factor, other, addend):  # type: ignore[no-untyped-def]
    """``factor * other + addend``, in one instruction where the machine has it."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(FLOATS, [FLOATS] * 3),
            f"llvm.fmuladd.{VECTOR}",
        )
        return builder.call(function, args)

    return Floats(Floats, Floats, Floats), build


def _comparison(symbol: str) -> Callable[..., Any]:
    @intrinsic
    def operation(typing_context, left, right):  # type: ignore[no-untyped-def]
        def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return builder.fcmp_ordered(symbol, *args)

        return Bits(Floats, Floats), build

    return operation  # type: ignore[no-any-return]


greater = _comparison(">")
at_most = _comparison("<=")
differs = _comparison("!=")
equals = _comparison("==")


@intrinsic
def select(typing_context, condition, chosen, otherwise):  # type: ignore[no-untyped-def]
    """Lane by lane, ``chosen`` where the condition holds."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.select(*args)

    return Floats(Bits, Floats, Floats), build


@intrinsic
def select_first(typing_context, count, chosen, otherwise):  # type: ignore[no-untyped-def]
    """The first ``count`` lanes of ``chosen``, the rest of ``otherwise``."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.select(_first_lanes(builder, args[0]), args[1], args[2])

    return Floats(types.intp, Floats, Floats), build


@intrinsic
def pack_bits(typing_context, bits):  # type: ignore[no-untyped-def]
    """The truth values as bits of an integer, first lane lowest."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.zext(builder.bitcast(args[0], _PACKED), ir.IntType(64))

    return types.uint64(Bits), build


@intrinsic
def lowest_bit(typing_context, packed):  # type: ignore[no-untyped-def]
    """Position of the lowest set bit of an integer that is not 0."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.intp(types.uint64), build


@intrinsic
def count_bits(typing_context, packed):  # type: ignore[no-untyped-def]
    """How many bits of an integer are set."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.ctpop(args[0])

    return types.intp(types.uint64), build


@intrinsic
def load_bits(typing_context, array, position):  # type: ignore[no-untyped-def]
    """Read truth values from bytes of eight."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        address = _address(context, builder, signature.args[0], *args)
        packed = builder.load(builder.bitcast(address, _PACKED.as_pointer()))
        packed.align = 1
        return builder.bitcast(packed, _BITS)

    return Bits(array, types.intp), build


@intrinsic
def store_bits(typing_context, array, position, bits):  # type: ignore[no-untyped-def]
    """Write truth values as bytes of eight, first lane in the lowest bit."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        address = _address(context, builder, signature.args[0], args[0], args[1])
        packed = builder.bitcast(args[2], _PACKED)
        builder.store(packed, builder.bitcast(address, _PACKED.as_pointer())).align = 1
        return context.get_dummy_value()

    return types.void(array, types.intp, Bits), build


@intrinsic
def power_of_two(typing_context, exponent):  # type: ignore[no-untyped-def]
    """``2^exponent`` for whole exponents from -126 to 127."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        whole = builder.fptosi(args[0], _INT32S)
        biased = builder.add(whole, _constant([127] * LANES))
        return builder.bitcast(builder.shl(biased, _constant([23] * LANES)), FLOATS)

    return Floats(Floats), build


def _arithmetic(python_operator: Any, instruction: str) -> None:
    @intrinsic
    def operation(typing_context, left, right):  # type: ignore[no-untyped-def]
        def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return getattr(builder, instruction)(*args)

        return Floats(Floats, Floats), build

    @overload(python_operator)
    def _overloaded(left, right):  # type: ignore[no-untyped-def]
        if isinstance(left, FloatsType) and isinstance(right, FloatsType):
            return lambda left, right: operation(left, right)
        return None


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")
