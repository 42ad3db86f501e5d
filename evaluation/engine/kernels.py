"""The compiled step of the event-driven engine: one call advances a stream by some frames.

A matrix is stored with the fan-out of each presynaptic neuron in one row, so that a spike reads
one contiguous piece of memory and a silent neuron reads nothing. Rows are added up in the order
of the neurons, eight at a time, so that eight streams of memory are read side by side while the
sums of a few columns stay in registers. Everything elementwise is ``training.kernels`` itself, and
the order of the sums is that of the training model in evaluation: in float32 the spikes are the
training model's bit by bit.

Layout, all arrays flat. ``matrices`` has a row for W and U of every layer, then W_o: offset of its
weights, elements per row (fan-out, padded), offset of its bias. Without a U the row length is 0.
``sites`` has a row for the encoder and every layer: neurons, offset of its state (padded to
``WIDE``), offset of its list of spikes. The fan-out of a gated layer is its forget drives, padded
to ``WIDE``, then its cell drives.

A list of spikes holds the positions of the non-zero outputs of the last frame in rising order,
their values, and for 8-bit weights their integer levels.

Everything is in this one file, because numba looks at a kernel's own file alone to see whether
machine code on disk is stale.

Shape legend: T frames, F features, H neurons, O outputs, L layers.
"""

from typing import NamedTuple

import numpy as np

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


@helper
def add_float_rows(  # type: ignore[no-untyped-def]
    weights, matrix, indices, values, first, count, is_binary, sums
):
    """``sums[j] = sum_n values[n] weights[indices[n], j]`` in order; binary spikes add or take."""
    offset, width = matrix[0], matrix[1]
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
                if not is_binary:
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


@helper
def add_byte_rows(  # type: ignore[no-untyped-def]
    weights, matrix, indices, levels, first, count, rows_at_once, integer_sums, scales, sums
):
    """``sums[j] = scales[j] * sum_n levels[n] * weights[indices[n], j]``, the sum in integers.

    ``rows_at_once`` products fit in 16 bits; their sum is then added to 32 bits.
    """
    offset, width, at = matrix[0], matrix[1], matrix[2]
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


@helper
def list_spikes(  # type: ignore[no-untyped-def]
    spike, h, num_neurons, scratch, scale, has_levels, found, indices, values, levels
):
    """Append the non-zeros of a vector of outputs to a list; returns its new end.

    Lanes behind the last neuron are none, whatever a file has in their place.
    """
    bits = pack_bits(differs(spike, splat(ZERO)))
    if num_neurons - h < LANES:
        bits = bits & ((np.uint64(1) << np.uint64(num_neurons - h)) - np.uint64(1))
    if bits != 0:
        store(scratch, 0, spike)
        while bits != 0:
            lane = lowest_bit(bits)
            indices[found] = h + lane
            values[found] = scratch[lane]
            if has_levels:
                levels[found] = np.int16(np.rint(scratch[lane] * scale))
            found += 1
            bits = bits & (bits - np.uint64(1))
    return found


class EngineFiring(NamedTuple):
    """What ``fire`` reads; see ``training.kernels.cpu_layer.Firing``."""

    lowest: np.float32
    highest: np.float32
    scale: np.float32
    threshold: np.float32
    is_quantized: bool


@helper
def firing_of(row):  # type: ignore[no-untyped-def]
    """A row of ``firing``."""
    return EngineFiring(row[0], row[1], row[2], row[3], row[4] != ZERO)


@helper
def left_over(potential, spike, leaks, at):  # type: ignore[no-untyped-def]
    """The residue of a vector of neurons."""
    if len(leaks) > 0:
        return load(leaks, at) * (potential - spike)
    return potential - spike


@helper
def encode(  # type: ignore[no-untyped-def]
    features,
    at,
    site,
    firing,
    leaks,
    residue,
    scratch,
    has_levels,
    indices,
    values,
    levels,
    saturation,
):
    """The input encoder, one frame: integrate, fire, list; returns the number of spikes."""
    num_neurons, state, first = site[0], site[1], site[2]
    scale = firing[2]
    limit = splat(saturation)
    found = first
    for h in range(0, num_neurons, LANES):
        flow = read(features, at + h, num_neurons - h)
        potential = clamped(load(residue, state + h) + flow, limit)
        spike, _ = fire(potential, firing_of(firing))
        store(residue, state + h, left_over(potential, spike, leaks, state + h))
        found = list_spikes(
            spike, h, num_neurons, scratch, scale, has_levels, found, indices, values, levels
        )
    return found - first


@helper
def fire_layer(  # type: ignore[no-untyped-def]
    kind,
    site,
    firing,
    leaks,
    drives,
    biases,
    bias_at,
    recurrent,
    has_recurrence,
    decays,
    decay_at,
    current,
    residue,
    scratch,
    has_levels,
    indices,
    values,
    levels,
    saturation,
):
    """The cells of one layer, one frame; returns the number of spikes."""
    num_neurons, state, first = site[0], site[1], site[2]
    padded = (num_neurons + WIDE - 1) // WIDE * WIDE
    scale = firing[2]
    limit = splat(saturation)
    one, zero = splat(ONE), splat(ZERO)
    found = first
    for h in range(0, num_neurons, LANES):
        flow = load(drives, h) + load(biases, bias_at + h)
        before = load(current, state + h)
        if kind == CONVENTIONAL:
            flow = clamped(flow + load(decays, decay_at + h) * before, limit)
        else:
            cell = load(drives, padded + h) + load(biases, bias_at + padded + h)
            if has_recurrence:
                flow = flow + load(recurrent, h)
                cell = cell + load(recurrent, padded + h)
            gate = logistic(flow)
            cell = smaller(larger(cell, zero), splat(firing[5]))
            flow = clamped(gate * before + (one - gate) * cell, limit)
        store(current, state + h, flow)
        potential = clamped(load(residue, state + h) + flow, limit)
        spike, _ = fire(potential, firing_of(firing))
        store(residue, state + h, left_over(potential, spike, leaks, state + h))
        found = list_spikes(
            spike, h, num_neurons, scratch, scale, has_levels, found, indices, values, levels
        )
    return found - first


@kernel
def advance(  # type: ignore[no-untyped-def]
    features,
    shape,
    matrices,
    sites,
    float_weights,
    byte_weights,
    scales,
    biases,
    decays,
    leaks,
    firing,
    saturation,
    current,
    residue,
    counts,
    indices,
    values,
    levels,
    rows_added,
    emitted,
    drives,
    recurrent,
    integer_sums,
    scratch,
    scores,
):
    """Advance one stream by T frames.

    Args:
        features: (T, F), flat.
        shape: T, kind (``CONVENTIONAL`` or ``GATED``), whether spikes are +-1 with the weights
            scaled for them, and how many products of an 8-bit weight and a level fit in 16 bits
            when added up; 0 for float32 weights.
        matrices: (2 L + 1, 3); see above.
        sites: (L + 1, 3); see above.
        float_weights: weights; empty for 8-bit weights.
        byte_weights: 8-bit weights, with a scale per output; else empty.
        scales: scale of each output of each matrix, at the offsets of its bias; 8-bit only.
        biases: folded batch norm of each output of each matrix, padded with 0.
        decays: tau of every layer, at the offsets of its state; conventional only.
        leaks: lambda of every site, at the offsets of its state; empty for no leak.
        firing: (L + 1, 6): lowest and highest potential in the clip, scale, threshold in levels,
            whether quantised, the largest cell.
        saturation: largest magnitude of a current or potential.
        current: I, state in and out.
        residue: R, state in and out.
        counts: spikes of every site's last frame, in and out.
        indices: their positions, in and out; likewise ``values`` and ``levels``.
        rows_added: rows of every matrix that were added up; counted on.
        emitted: spikes of every site; counted on.
        drives: room for the widest row.
        recurrent: room for the widest row.
        integer_sums: room for the widest row, int32; 8-bit weights only.
        scratch: room for a vector of floats.
        scores: (T, width of W_o), flat, written: BN(W_o Y) before the softmax.
    """
    num_frames, kind, is_binary, rows_at_once = shape
    has_levels = rows_at_once > 0
    num_layers = sites.shape[0] - 1
    last = 2 * num_layers
    width = matrices[last, 1]
    for t in range(num_frames):
        count = encode(
            features,
            t * sites[0, 0],
            sites[0],
            firing[0],
            leaks,
            residue,
            scratch,
            has_levels,
            indices,
            values,
            levels,
            saturation,
        )
        counts[0] = count
        emitted[0] += count
        for layer in range(num_layers):
            feed, back = matrices[2 * layer], matrices[2 * layer + 1]
            below, own = sites[layer], sites[layer + 1]
            has_recurrence = back[1] > 0
            rows_added[2 * layer] += counts[layer]
            if has_levels:
                add_byte_rows(
                    byte_weights, feed, indices, levels, below[2], counts[layer],
                    rows_at_once, integer_sums, scales, drives,
                )  # fmt: skip
            else:
                add_float_rows(
                    float_weights, feed, indices, values, below[2], counts[layer], is_binary, drives
                )
            if has_recurrence:
                rows_added[2 * layer + 1] += counts[layer + 1]
                if has_levels:
                    add_byte_rows(
                        byte_weights, back, indices, levels, own[2], counts[layer + 1],
                        rows_at_once, integer_sums, scales, recurrent,
                    )  # fmt: skip
                else:
                    add_float_rows(
                        float_weights, back, indices, values, own[2], counts[layer + 1],
                        is_binary, recurrent,
                    )  # fmt: skip
            count = fire_layer(
                kind,
                own,
                firing[layer + 1],
                leaks,
                drives,
                biases,
                feed[2],
                recurrent,
                has_recurrence,
                decays,
                own[1],
                current,
                residue,
                scratch,
                has_levels,
                indices,
                values,
                levels,
                saturation,
            )
            counts[layer + 1] = count
            emitted[layer + 1] += count
        rows_added[last] += counts[num_layers]
        top = sites[num_layers, 2]
        if has_levels:
            add_byte_rows(
                byte_weights, matrices[last], indices, levels, top, counts[num_layers],
                rows_at_once, integer_sums, scales, drives,
            )  # fmt: skip
        else:
            add_float_rows(
                float_weights, matrices[last], indices, values, top, counts[num_layers],
                is_binary, drives,
            )  # fmt: skip
        bias_at = matrices[last, 2]
        for j in range(0, width, LANES):
            store(scores, t * width + j, load(drives, j) + load(biases, bias_at + j))
