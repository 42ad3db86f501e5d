"""What happens to a vector of neurons at a time: reading, firing, the logistic function.

Everything here follows ``training.lif`` operation by operation and rounding by rounding, so
that spikes agree with the reference bit by bit wherever the drive does.
"""

import numpy as np

from training.kernels.jit import helper
from training.kernels.simd import (
    LANES,
    at_most,
    equals,
    fused_multiply_add,
    greater,
    load,
    load_first,
    magnitude,
    power_of_two,
    rounded,
    select,
    select_first,
    splat,
    store,
    store_first,
    truncated,
)

CACHE_LINE = 64  # bytes
ZERO = np.float32(0.0)
ONE = np.float32(1.0)
LOG2_E = np.float32(1.4426950408889634)
LN2_HIGH = np.float32(0.693359375)  # few bits: its product with a small integer is exact
LN2_LOW = np.float32(-2.12194440e-4)
EXP_LIMIT = np.float32(87.0)
# Coefficients of Cephes' expf (Moshier): relative error below 2e-7 on |r| <= ln(2) / 2.
EXP_2 = np.float32(5.0000001201e-1)
EXP_3 = np.float32(1.6666665459e-1)
EXP_4 = np.float32(4.1665795894e-2)
EXP_5 = np.float32(8.3334519073e-3)
EXP_6 = np.float32(1.3981999507e-3)
EXP_7 = np.float32(1.9875691500e-4)


@helper
def aligned(size):  # type: ignore[no-untyped-def]
    """Room for so many floats, beginning with a cache line: no vector lies across two."""
    room = np.empty(size + CACHE_LINE // 4, np.float32)
    start = (-room.ctypes.data % CACHE_LINE) // 4
    return room[start : start + size]


@helper(allocates=False)
def read(array, position, count):  # type: ignore[no-untyped-def]
    """Up to a vector of a row with ``count`` left; missing lanes are 0."""
    if count >= LANES:
        return load(array, position)
    return load_first(array, position, count)


@helper(allocates=False)
def write(array, position, count, value):  # type: ignore[no-untyped-def]
    """Up to a vector into a row with ``count`` left."""
    if count >= LANES:
        store(array, position, value)
    else:
        store_first(array, position, count, value)


@helper(allocates=False)
def smaller(left, right):  # type: ignore[no-untyped-def]
    """Lane-wise minimum."""
    return select(greater(left, right), right, left)


@helper(allocates=False)
def larger(left, right):  # type: ignore[no-untyped-def]
    """Lane-wise maximum."""
    return select(greater(left, right), left, right)


@helper(allocates=False)
def clamped(value, limit):  # type: ignore[no-untyped-def]
    """``min(max(value, -limit), limit)`` for vectors."""
    return larger(smaller(value, limit), splat(ZERO) - limit)


@helper(allocates=False)
def logistic(x):  # type: ignore[no-untyped-def]
    """``1 / (1 + exp(-x))``, within 1e-6 of the exact value, never NaN for finite ``x``."""
    limit = splat(EXP_LIMIT)
    x = clamped(splat(ZERO) - x, limit)
    power = rounded(x * splat(LOG2_E))
    r = fused_multiply_add(power, splat(-LN2_HIGH), x)
    r = fused_multiply_add(power, splat(-LN2_LOW), r)
    series = fused_multiply_add(splat(EXP_7), r, splat(EXP_6))
    series = fused_multiply_add(series, r, splat(EXP_5))
    series = fused_multiply_add(series, r, splat(EXP_4))
    series = fused_multiply_add(series, r, splat(EXP_3))
    series = fused_multiply_add(series, r, splat(EXP_2))
    exponential = fused_multiply_add(series, r * r, r + splat(ONE)) * power_of_two(power)
    one = splat(ONE)
    return one / (one + exponential)


@helper(allocates=False)
def clipped(potential, firing):  # type: ignore[no-untyped-def]
    """The potential in the clip of a ``cpu_layer.Firing``, or of anything with its range."""
    return clamped(potential, splat(firing.range_M))


@helper(allocates=False)
def fire(potential, firing):  # type: ignore[no-untyped-def]
    """Spikes of a vector of membrane potentials, and where the potential lies inside the clip."""
    within = clipped(potential, firing)
    inside = equals(within, potential)
    if not firing.is_quantized:
        return potential, inside
    factor = splat(firing.scale)
    scaled = within * factor
    fires = at_most(splat(firing.threshold), magnitude(scaled))
    return select(fires, truncated(scaled), splat(ZERO)) / factor, inside


@helper(allocates=False)
def track_extremes(extremes, potential, count):  # type: ignore[no-untyped-def]
    """Widen ``extremes`` (a vector of minima, then one of maxima) by the first ``count`` lanes."""
    low = load(extremes, 0)
    high = load(extremes, LANES)
    new_low = smaller(low, potential)
    new_high = larger(high, potential)
    if count < LANES:
        new_low = select_first(count, new_low, low)
        new_high = select_first(count, new_high, high)
    store(extremes, 0, new_low)
    store(extremes, LANES, new_high)


@helper(allocates=False)
def clear(array, position, count):  # type: ignore[no-untyped-def]
    """Write ``count`` zeros."""
    zero = splat(ZERO)
    for h in range(0, count, LANES):
        write(array, position + h, count - h, zero)
