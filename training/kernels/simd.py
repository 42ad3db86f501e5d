"""A vector of floats at a time in numba: a vector type for the CPU kernels.

LLVM's own vectoriser gives up on loops over as many arrays as a recurrence has (it would have
to prove or test that none overlap), and numba has no vector registers. So this module adds a
type of ``LANES`` float32 lanes, ``Floats``, and one of as many bits, ``Bits``, with the few
operations the kernels need. They are plain LLVM vector instructions, correct everywhere;
``lanes`` says how many lanes suit the machine.

Arrays are flat float32 or uint8; positions are element offsets.
"""

import inspect
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


_ELEMENTS = {"float": ir.FloatType(), "i1": ir.IntType(1), "i16": ir.IntType(16)}


class Vector(types.Type):  # type: ignore[misc]
    """A numba type whose values are vectors of LLVM; it is kept with machine code, so by names."""

    def __init__(self, element: str, count: int) -> None:
        super().__init__(name=f"{count} x {element}")
        self.element, self.count = element, count


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Any) -> None:
        lanes = ir.VectorType(_ELEMENTS[vector.element], vector.count)
        super().__init__(manager, vector, lanes)


Floats = Vector("float", LANES)
Bits = Vector("i1", LANES)


def _made_intrinsic(make: Callable[..., Any], write: Callable[..., Any], *names: str) -> Any:
    """What numba calls; it looks at the names of the arguments, so they cannot be left open."""
    names = ("typing_context", *names)
    named = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    make.__name__, make.__signature__ = write.__name__, inspect.Signature(named)  # type: ignore[attr-defined]
    return intrinsic(make)


def instruction(result: Any, *arguments: Any) -> Callable[[Callable[..., Any]], Any]:
    """Make what compiled code calls of a function that writes its instructions.

    Args:
        result: type of what it returns.
        arguments: types of the values that the function is given after LLVM's builder.
    """

    def decorate(write: Callable[..., Any]) -> Any:
        def make(*_: Any) -> Any:
            def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                return write(builder, *args)

            return result(*arguments), build

        _, *names = inspect.signature(write).parameters
        return _made_intrinsic(make, write, *names)

    return decorate


def memory_instruction(result: Any, *arguments: Any) -> Callable[[Callable[..., Any]], Any]:
    """The same of a function that is given an address: its callers give an array and a position."""

    def decorate(write: Callable[..., Any]) -> Any:
        def make(_: Any, array: Any, *given: Any) -> Any:
            def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                start = array_data(context, builder, array, args[0])
                value = write(builder, builder.gep(start, [args[1]]), *args[2:])
                return context.get_dummy_value() if result is types.void else value

            return result(array, types.intp, *arguments), build

        _, _, *names = inspect.signature(write).parameters
        return _made_intrinsic(make, write, "array", "position", *names)

    return decorate


def arithmetic(vector: Any, **instructions: str) -> None:
    """Let Python's operators on these vectors be instructions of LLVM, by the operators' names."""

    def overloaded(python_operator: Any, name: str) -> None:
        @instruction(vector, vector, vector)
        def operation(builder: Any, left: Any, right: Any) -> Any:
            return getattr(builder, name)(left, right)

        @overload(python_operator)
        def _(left, right):  # type: ignore[no-untyped-def]
            if left == vector and right == vector:
                return lambda left, right: operation(left, right)
            return None

    for python_operator, name in instructions.items():
        overloaded(getattr(operator, python_operator), name)


def array_data(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    """Pointer to an array's first element."""
    return cgutils.create_struct_proxy(array_type)(context, builder, value=array).data


def _constant(values: list[int]) -> Any:
    return ir.Constant(_INT32S, values)


def broadcast(builder: Any, value: Any, vector: Any) -> Any:
    """The same value in every lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    single = builder.insert_element(undefined, value, ir.Constant(_INT32, 0))
    lanes = ir.Constant(ir.VectorType(_INT32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(single, undefined, lanes)


def load_vector(builder: Any, address: Any, vector: Any, align: int) -> Any:
    """Read a vector of a kind that need not lie on a boundary of its own size."""
    value = builder.load(builder.bitcast(address, vector.as_pointer()))
    value.align = align
    return value


def store_vector(builder: Any, address: Any, value: Any, align: int) -> None:
    """Write a vector, likewise."""
    builder.store(value, builder.bitcast(address, value.type.as_pointer())).align = align


def call_of_llvm(builder: Any, name: str, result: Any, *args: Any) -> Any:
    """Call one of LLVM's own functions, ``llvm.NAME``."""
    kind = ir.FunctionType(result, [value.type for value in args])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}")
    return builder.call(function, args)


def _first_lanes(builder: Any, count: Any) -> Any:
    count = builder.trunc(count, _INT32)
    lanes = _constant(list(range(LANES)))
    return builder.icmp_signed("<", lanes, broadcast(builder, count, _INT32S))


@memory_instruction(Floats)
def load(builder: Any, address: Any) -> Any:
    """Read a vector of floats."""
    return load_vector(builder, address, FLOATS, 4)


@memory_instruction(types.void, Floats)
def store(builder: Any, address: Any, value: Any) -> None:
    """Write a vector of floats."""
    store_vector(builder, address, value, 4)


@memory_instruction(Floats, types.intp)
def load_first(builder: Any, address: Any, count: Any) -> Any:
    """Read the first ``count`` < ``LANES`` floats; the others are 0, their memory not touched."""
    pointer = builder.bitcast(address, FLOATS.as_pointer())
    mask, zero = _first_lanes(builder, count), ir.Constant(FLOATS, [0.0] * LANES)
    align = ir.Constant(_INT32, 4)
    name = f"masked.load.{VECTOR}.p0"
    return call_of_llvm(builder, name, FLOATS, pointer, align, mask, zero)


@memory_instruction(types.void, types.intp, Floats)
def store_first(builder: Any, address: Any, count: Any, value: Any) -> None:
    """Write the first ``count`` < ``LANES`` floats and leave the memory behind them alone."""
    if LANES == WIDE:
        pointer, align = builder.bitcast(address, FLOATS.as_pointer()), ir.Constant(_INT32, 4)
        mask, name = _first_lanes(builder, count), f"masked.store.{VECTOR}.p0"
        call_of_llvm(builder, name, ir.VoidType(), value, pointer, align, mask)
        return
    # AVX2's masked store is slow on some processors.
    for lane in range(LANES - 1):
        index = ir.Constant(count.type, lane)
        with builder.if_then(builder.icmp_signed(">", count, index), likely=True):
            lane_value = builder.extract_element(value, ir.Constant(_INT32, lane))
            builder.store(lane_value, builder.gep(address, [index])).align = 4


@instruction(Floats, types.float32)
def splat(builder: Any, value: Any) -> Any:
    """The same float in every lane."""
    return broadcast(builder, value, FLOATS)


def _unary(name: str) -> Any:
    @instruction(Floats, Floats)
    def operation(builder: Any, value: Any) -> Any:
        return call_of_llvm(builder, f"{name}.{VECTOR}", FLOATS, value)

    return operation


truncated = _unary("trunc")
magnitude = _unary("fabs")
rounded = _unary("rint")


@instruction(Floats, Floats, Floats, Floats)
def fused_multiply_add(builder: Any, factor: Any, other: Any, addend: Any) -> Any:
    """``factor * other + addend``, in one instruction where the machine has it."""
    return call_of_llvm(builder, f"fmuladd.{VECTOR}", FLOATS, factor, other, addend)


def _comparison(symbol: str) -> Any:
    @instruction(Bits, Floats, Floats)
    def operation(builder: Any, left: Any, right: Any) -> Any:
        return builder.fcmp_ordered(symbol, left, right)

    return operation


greater = _comparison(">")
at_most = _comparison("<=")
differs = _comparison("!=")
equals = _comparison("==")


@instruction(Floats, Bits, Floats, Floats)
def select(builder: Any, condition: Any, chosen: Any, otherwise: Any) -> Any:
    """Lane by lane, ``chosen`` where the condition holds."""
    return builder.select(condition, chosen, otherwise)


@instruction(Floats, types.intp, Floats, Floats)
def select_first(builder: Any, count: Any, chosen: Any, otherwise: Any) -> Any:
    """The first ``count`` lanes of ``chosen``, the rest of ``otherwise``."""
    return builder.select(_first_lanes(builder, count), chosen, otherwise)


@instruction(types.uint64, Bits)
def pack_bits(builder: Any, bits: Any) -> Any:
    """The truth values as bits of an integer, first lane lowest."""
    return builder.zext(builder.bitcast(bits, _PACKED), ir.IntType(64))


@instruction(types.intp, types.uint64)
def lowest_bit(builder: Any, packed: Any) -> Any:
    """Position of the lowest set bit of an integer that is not 0."""
    return builder.cttz(packed, ir.Constant(ir.IntType(1), 1))


@instruction(types.intp, types.uint64)
def count_bits(builder: Any, packed: Any) -> Any:
    """How many bits of an integer are set."""
    return builder.ctpop(packed)


@memory_instruction(Bits)
def load_bits(builder: Any, address: Any) -> Any:
    """Read truth values from bytes of eight."""
    return builder.bitcast(load_vector(builder, address, _PACKED, 1), _BITS)


@memory_instruction(types.void, Bits)
def store_bits(builder: Any, address: Any, bits: Any) -> None:
    """Write truth values as bytes of eight, first lane in the lowest bit."""
    store_vector(builder, address, builder.bitcast(bits, _PACKED), 1)


@instruction(Floats, Floats)
def power_of_two(builder: Any, exponent: Any) -> Any:
    """``2^exponent`` for whole exponents from -126 to 127."""
    biased = builder.add(builder.fptosi(exponent, _INT32S), _constant([127] * LANES))
    return builder.bitcast(builder.shl(biased, _constant([23] * LANES)), FLOATS)


arithmetic(Floats, add="fadd", sub="fsub", mul="fmul", truediv="fdiv")
