"""The compiled step of the event-driven engine: one call advances a stream by some frames.

A matrix is stored with the fan-out of each presynaptic neuron in one row, so that a spike reads
one contiguous piece of memory and a silent neuron reads nothing. Rows are added up in the order
of the neurons, eight at a time, so that eight streams of memory are read side by side while the
sums of a few columns stay in registers. Everything elementwise is ``training.kernels`` itself, and
the order of the sums is that of the training model in evaluation: in float32 the spikes are the
training model's bit by bit.

All arrays are flat. The fan-out of a gated layer is its forget drives, padded to ``WIDE``, then
its cell drives. A site is the encoder or a layer. Its list of spikes holds the positions of the
non-zero outputs of the last frame in rising order, their values, and their integer levels, which
8-bit weights are multiplied by.

Everything is in this one file, because numba looks at a kernel's own file alone to see whether
machine code on disk is stale.

Shape legend: T frames, F features, H neurons, O outputs, L layers.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import evaluation.engine.quick_start  # noqa: F401 - before numba looks for SciPy
from training.kernels.cpu_firing import ONE, ZERO, clamped, fire, larger, logistic, read, smaller
from training.kernels.jit import helper, kernel
from training.kernels.lanes import WIDE
from training.kernels.simd import (
    LANES,
    differs,
    fused_multiply_add,
    load,
    lowest_bit,
    pack_bits,
    splat,
    store,
)
from training.kernels.simd_integers import SHORT_LANES, add_to_ints, load_bytes, splat_short

FLOAT_COLUMNS = 4 * LANES
BYTE_COLUMNS = 4 * SHORT_LANES
ROWS_AT_ONCE = 8

CONVENTIONAL, GATED = 0, 1

Array = NDArray[Any]


class Network(NamedTuple):
    """Weights and sizes of a network, which no frame changes."""

    kind: int  # ``CONVENTIONAL`` or ``GATED``
    is_binary: bool  # whether spikes are +-1, with the weights scaled for them
    # how many products of an 8-bit weight and a level fit in 16 bits when added up; 0 for float32
    # weights
    rows_at_once: int
    saturation: np.float32  # largest magnitude of a current or potential
    # (2 L + 1, 3), a row for W and U of every layer, then W_o: offset of its weights, elements per
    # row (fan-out, padded; 0 where there is no U), offset of its bias
    matrices: Array
    # (L + 1, 3), a row for the encoder and every layer: neurons, offset of its state (padded to
    # ``WIDE``), offset of its list of spikes
    sites: Array
    float_weights: Array  # weights; empty for 8-bit weights
    byte_weights: Array  # 8-bit weights; else empty
    scales: Array  # of each output of each matrix, at the offsets of its bias; 8-bit weights only
    biases: Array  # folded batch norm of each output of each matrix, padded with 0
    decays: Array  # tau of every layer, at the offsets of its state; conventional only
    leaks: Array  # lambda of every site, at the offsets of its state; empty for no leak
    # (L + 1, 4): range, scale, threshold in levels, whether quantised
    firing: Array


class State(NamedTuple):
    """What a frame changes, and room to work in."""

    current: Array  # I of every neuron
    residue: Array  # R of every neuron
    counts: Array  # spikes of every site's last frame
    indices: Array
    values: Array
    levels: Array  # their integer levels; 8-bit weights only
    rows_added: Array  # rows of every matrix that were added up since the stream began
    emitted: Array  # spikes of every site since the stream began
    drives: Array  # room for the widest row
    recurrent: Array  # room for the widest row
    integer_sums: Array  # room for the widest row, int32; 8-bit weights only
    scratch: Array  # room for a vector of floats


@helper(allocates=False)
def add_float_rows(network, state, matrix, first, count, sums):  # type: ignore[no-untyped-def]
    """``sums[j] = sum_n values[n] weights[indices[n], j]`` in order; binary spikes add or take."""
    offset, width = network.matrices[matrix, 0], network.matrices[matrix, 1]
    weights, indices, values = network.float_weights, state.indices, state.values
    for start in range(first, first + max(count, 1), ROWS_AT_ONCE):
        end = min(start + ROWS_AT_ONCE, first + count)
        for j in range(0, width, FLOAT_COLUMNS):
            if start == first:
                sum0 = sum1 = sum2 = sum3 = splat(ZERO)
            else:
                sum0 = load(sums, j)
                sum1 = load(sums, j + LANES)
                sum2 = load(sums, j + 2 * LANES)
                sum3 = load(sums, j + 3 * LANES)
            for n in range(start, end):
                row = offset + np.int64(indices[n]) * width + j
                if not network.is_binary:
                    value = splat(values[n])
                    sum0 = fused_multiply_add(value, load(weights, row), sum0)
                    sum1 = fused_multiply_add(value, load(weights, row + LANES), sum1)
                    sum2 = fused_multiply_add(value, load(weights, row + 2 * LANES), sum2)
                    sum3 = fused_multiply_add(value, load(weights, row + 3 * LANES), sum3)
                elif values[n] > ZERO:
                    sum0 = sum0 + load(weights, row)
                    sum1 = sum1 + load(weights, row + LANES)
                    sum2 = sum2 + load(weights, row + 2 * LANES)
                    sum3 = sum3 + load(weights, row + 3 * LANES)
                else:
                    sum0 = sum0 - load(weights, row)
                    sum1 = sum1 - load(weights, row + LANES)
                    sum2 = sum2 - load(weights, row + 2 * LANES)
                    sum3 = sum3 - load(weights, row + 3 * LANES)
            store(sums, j, sum0)
            store(sums, j + LANES, sum1)
            store(sums, j + 2 * LANES, sum2)
            store(sums, j + 3 * LANES, sum3)


@helper(allocates=False)
def add_byte_rows(network, state, matrix, first, count, sums):  # type: ignore[no-untyped-def]
    """``sums[j] = scales[j] * sum_n levels[n] * weights[indices[n], j]``, the sum in integers.

    ``rows_at_once`` products fit in 16 bits; their sum is then added to 32 bits.
    """
    offset, width, at = network.matrices[matrix]
    weights, scales, rows_at_once = network.byte_weights, network.scales, network.rows_at_once
    indices, levels, integer_sums = state.indices, state.levels, state.integer_sums
    integer_sums[:width] = 0
    for start in range(first, first + count, rows_at_once):
        end = min(start + rows_at_once, first + count)
        for j in range(0, width, BYTE_COLUMNS):
            sum0 = sum1 = sum2 = sum3 = splat_short(np.int16(0))
            for n in range(start, end):
                row = offset + np.int64(indices[n]) * width + j
                level = splat_short(levels[n])
                sum0 = sum0 + level * load_bytes(weights, row)
                sum1 = sum1 + level * load_bytes(weights, row + SHORT_LANES)
                sum2 = sum2 + level * load_bytes(weights, row + 2 * SHORT_LANES)
                sum3 = sum3 + level * load_bytes(weights, row + 3 * SHORT_LANES)
            add_to_ints(integer_sums, j, sum0)
            add_to_ints(integer_sums, j + SHORT_LANES, sum1)
            add_to_ints(integer_sums, j + 2 * SHORT_LANES, sum2)
            add_to_ints(integer_sums, j + 3 * SHORT_LANES, sum3)
    for j in range(width):
        sums[j] = np.float32(integer_sums[j]) * scales[at + j]


@helper(allocates=False)
def add_rows(network, state, matrix, site, sums):  # type: ignore[no-untyped-def]
    """The rows of a matrix that the last spikes of a site choose, added up and counted."""
    first, count = network.sites[site, 2], state.counts[site]
    state.rows_added[matrix] += count
    if network.rows_at_once > 0:
        add_byte_rows(network, state, matrix, first, count, sums)
    else:
        add_float_rows(network, state, matrix, first, count, sums)


class EngineFiring(NamedTuple):
    """What ``fire`` reads (``training.kernels.cpu_layer.Firing``)."""

    range_M: np.float32
    scale: np.float32
    threshold: np.float32
    is_quantized: bool


@helper
def firing_of(row):  # type: ignore[no-untyped-def]
    """A row of ``firing``."""
    return EngineFiring(row[0], row[1], row[2], row[3] != ZERO)


@helper(allocates=False)
def list_spikes(spike, h, num_neurons, scale, state, found):  # type: ignore[no-untyped-def]
    """Append the non-zeros of a vector of outputs to a list; returns its new end.

    Lanes behind the last neuron are none, whatever a file has in their place.
    """
    bits = pack_bits(differs(spike, splat(ZERO)))
    if num_neurons - h < LANES:
        bits = bits & ((np.uint64(1) << np.uint64(num_neurons - h)) - np.uint64(1))
    if bits != 0:
        store(state.scratch, 0, spike)
        while bits != 0:
            lane = lowest_bit(bits)
            state.indices[found] = h + lane
            state.values[found] = state.scratch[lane]
            state.levels[found] = np.int16(np.rint(state.scratch[lane] * scale))
            found += 1
            bits = bits & (bits - np.uint64(1))
    return found


@helper(allocates=False)
def fire_vector(network, state, site, firing, h, flow, found):  # type: ignore[no-untyped-def]
    """A vector of neurons: integrate, fire, keep the residue, list; returns the list's new end."""
    num_neurons, at = network.sites[site, 0], network.sites[site, 1] + h
    potential = clamped(load(state.residue, at) + flow, splat(network.saturation))
    spike, _ = fire(potential, firing)
    left = potential - spike
    if len(network.leaks) > 0:
        left = load(network.leaks, at) * left
    store(state.residue, at, left)
    return list_spikes(spike, h, num_neurons, firing.scale, state, found)


@helper(allocates=False)
def keep_count(network, state, site, found):  # type: ignore[no-untyped-def]
    """Note how many spikes a site's list holds, and that so many were emitted."""
    state.counts[site] = found - network.sites[site, 2]
    state.emitted[site] += state.counts[site]


@helper(allocates=False)
def encode(network, state, features, at):  # type: ignore[no-untyped-def]
    """The input encoder, one frame, whose features begin at ``at``."""
    num_neurons, found = network.sites[0, 0], network.sites[0, 2]
    firing = firing_of(network.firing[0])
    for h in range(0, num_neurons, LANES):
        flow = read(features, at + h, num_neurons - h)
        found = fire_vector(network, state, 0, firing, h, flow, found)
    keep_count(network, state, 0, found)


@helper(allocates=False)
def fire_layer(network, state, layer):  # type: ignore[no-untyped-def]
    """The cells of one layer, one frame, once their drives are there."""
    site = layer + 1
    num_neurons, at, found = network.sites[site]
    padded = (num_neurons + WIDE - 1) // WIDE * WIDE
    bias_at = network.matrices[2 * layer, 2]
    has_recurrence = network.matrices[2 * layer + 1, 1] > 0
    firing = firing_of(network.firing[site])
    limit, one, zero = splat(network.saturation), splat(ONE), splat(ZERO)
    for h in range(0, num_neurons, LANES):
        flow = load(state.drives, h) + load(network.biases, bias_at + h)
        before = load(state.current, at + h)
        if network.kind == CONVENTIONAL:
            flow = clamped(flow + load(network.decays, at + h) * before, limit)
        else:
            cell = load(state.drives, padded + h) + load(network.biases, bias_at + padded + h)
            if has_recurrence:
                flow = flow + load(state.recurrent, h)
                cell = cell + load(state.recurrent, padded + h)
            gate = logistic(flow)
            cell = smaller(larger(cell, zero), limit)
            flow = clamped(gate * before + (one - gate) * cell, limit)
        store(state.current, at + h, flow)
        found = fire_vector(network, state, site, firing, h, flow, found)
    keep_count(network, state, site, found)


@kernel(allocates=False)
def advance(network, state, features, num_frames, scores):  # type: ignore[no-untyped-def]
    """Advance one stream by T frames.

    Args:
        state: ``State``, in and out.
        features: (T, F), flat.
        num_frames: T.
        scores: (T, width of W_o), flat, written: BN(W_o Y) before the softmax.
    """
    num_layers = network.sites.shape[0] - 1
    last = 2 * num_layers
    width, bias_at = network.matrices[last, 1], network.matrices[last, 2]
    for t in range(num_frames):
        encode(network, state, features, t * network.sites[0, 0])
        for layer in range(num_layers):
            add_rows(network, state, 2 * layer, layer, state.drives)
            if network.matrices[2 * layer + 1, 1] > 0:
                add_rows(network, state, 2 * layer + 1, layer + 1, state.recurrent)
            fire_layer(network, state, layer)
        add_rows(network, state, last, num_layers, state.drives)
        for j in range(0, width, LANES):
            out = load(state.drives, j) + load(network.biases, bias_at + j)
            store(scores, t * width + j, out)
