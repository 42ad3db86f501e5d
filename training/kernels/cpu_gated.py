"""CPU kernels of the gated recurrences: v1, and v2 with its recurrent product.

Forward, with p the drives plus the recurrent product of v2::

    F = sigma(p_f)    C = ReLU(p_c)    I_t = F I_{t-1} + (1 - F) C m    then firing

Backward, ``gV`` as in ``cpu_scan`` with the recurrent gradient added to that of the spikes::

    gI_t = gV_t + F_{t+1} gI_{t+1}
    gp_f = gI_t (I_{t-1} - C m) F (1 - F)      gp_c = gI_t (1 - F) m [C > 0]
    gY_{t-1} += U_f^T gp_f + U_c^T gp_c

C itself is not needed: by the forward equation ``(I_{t-1} - C m) (1 - F) = I_{t-1} - I_t``.
Kept for the backward pass: F and I in float32, the bits ``inside`` and ``C > 0``; not the drives.
Utterances are independent, so a call runs its ``rows`` through the whole sequence alone.
"""

import numpy as np

from training.kernels.cpu_firing import (
    ONE,
    ZERO,
    aligned,
    clamped,
    clear,
    fire,
    larger,
    logistic,
    read,
    smaller,
    track_extremes,
    write,
)
from training.kernels.cpu_products import (
    DENSE_ROWS,
    DENSE_WIDTH,
    GATHER_WIDTH,
    SPARSE_BELOW,
    count_nonzeros,
    gather,
    list_nonzeros,
    multiply,
)
from training.kernels.cpu_scan import clear_bits, num_bytes, num_running
from training.kernels.jit import helper, kernel
from training.kernels.simd import (
    LANES,
    greater,
    load,
    load_bits,
    select,
    splat,
    store,
    store_bits,
)


@helper
def product_width(num_columns):  # type: ignore[no-untyped-def]
    """Room for a row of a product, whichever way it is computed."""
    gathered = (num_columns + GATHER_WIDTH - 1) // GATHER_WIDTH * GATHER_WIDTH
    dense = (num_columns + DENSE_WIDTH - 1) // DENSE_WIDTH * DENSE_WIDTH
    return max(gathered, dense) + LANES


@helper
def recurrent_product(  # type: ignore[no-untyped-def]
    spikes, starts, count, num_neurons, gather_weight, dense_weight, indices, values, counts, out
):
    """``Y U^T`` of ``count`` rows into ``out``, sparse or dense by the rows' density."""
    num_columns = 2 * num_neurons
    stride = product_width(num_columns)
    total = 0
    for i in range(count):
        total += count_nonzeros(spikes, starts[i], num_neurons)
    if total <= SPARSE_BELOW * count * num_neurons:
        for i in range(count):
            at = i * num_neurons
            counts[i] = list_nonzeros(spikes, starts[i], num_neurons, indices, values, at)
        for n in range((num_columns + GATHER_WIDTH - 1) // GATHER_WIDTH):
            tile = n * num_neurons * GATHER_WIDTH
            for i in range(count):
                to = i * stride + n * GATHER_WIDTH
                gather(
                    gather_weight, tile, indices, values, i * num_neurons, counts[i], out, to, False
                )
    else:
        num_tiles = (num_columns + DENSE_WIDTH - 1) // DENSE_WIDTH
        depth = num_neurons
        multiply(spikes, starts, count, depth, depth, dense_weight, num_tiles, out, stride, False)


@helper
def gated_row(  # type: ignore[no-untyped-def]
    num_neurons,
    drive,
    drive_at,
    recurrent,
    recurrent_at,
    has_recurrence,
    mask,
    mask_at,
    has_mask,
    current,
    residue,
    state,
    spikes,
    gates,
    currents,
    at,
    inside,
    positive,
    byte,
    save,
    extremes,
    quantizer,
):
    """One frame of one utterance."""
    range_M, scale, threshold, is_quantized, saturation = quantizer
    limit = splat(saturation)
    one = splat(ONE)
    zero = splat(ZERO)
    for h in range(0, num_neurons, LANES):
        left = num_neurons - h
        forget_drive = read(drive, drive_at + h, left)
        cell_drive = read(drive, drive_at + num_neurons + h, left)
        if has_recurrence:
            forget_drive = forget_drive + load(recurrent, recurrent_at + h)
            cell_drive = cell_drive + load(recurrent, recurrent_at + num_neurons + h)
        gate = logistic(forget_drive)
        flow = smaller(larger(cell_drive, zero), limit)
        if save:
            write(gates, at + h, left, gate)
            store_bits(positive, byte + h // 8, greater(flow, zero))
        if has_mask:
            flow = flow * read(mask, mask_at + h, left)
        flow = clamped(gate * load(current, state + h) + (one - gate) * flow, limit)
        store(current, state + h, flow)
        potential = clamped(load(residue, state + h) + flow, limit)
        track_extremes(extremes, potential, left)
        spike, is_inside = fire(potential, range_M, scale, threshold, is_quantized)
        store(residue, state + h, potential - spike)
        write(spikes, at + h, left, spike)
        if save:
            write(currents, at + h, left, flow)
            store_bits(inside, byte + h // 8, is_inside)


@kernel
def gated_forward(  # type: ignore[no-untyped-def]
    rows,
    lengths,
    shape,
    drive,
    drive_strides,
    mask,
    has_mask,
    gather_weight,
    dense_weight,
    has_recurrence,
    current,
    residue,
    initial_spikes,
    spikes,
    gates,
    currents,
    inside,
    positive,
    save,
    extremes,
    quantizer,
):
    """The gated layers forward.

    Args:
        rows: utterances of this call, by falling length.
        lengths: frames of every utterance.
        shape: frames, utterances, neurons, padded row width of the state.
        drive: both drives, 2H per row, forget first; ``drive_strides`` are its steps per frame
            and per utterance.
        mask: dropout mask per utterance and neuron, where ``has_mask``.
        gather_weight: U in tiles for ``gather``, where ``has_recurrence``.
        dense_weight: U in tiles for ``multiply``.
        current: I, state in and out, padded rows.
        residue: R, state in and out, padded rows.
        initial_spikes: Y before the first frame.
        spikes: Y, written everywhere, 0 at padding frames.
        gates: F, written where ``save``; likewise ``currents`` I and the bits ``inside``
            and ``positive`` (C > 0).
        extremes: a vector of minima of V, then one of maxima.
        quantizer: range M, scale, threshold, whether quantised, saturation.
    """
    num_frames, batch_size, num_neurons, width = shape
    active = len(rows)
    room = len(rows) + DENSE_ROWS if has_recurrence else 0
    stride = product_width(2 * num_neurons)
    recurrent = aligned(room * stride)
    recurrent[:] = ZERO
    indices = np.empty(room * num_neurons, np.int32)
    values = np.empty(room * num_neurons, np.float32)
    counts = np.empty(room, np.int64)
    starts = np.empty(room, np.int64)
    for t in range(num_frames):
        active = num_running(rows, lengths, t, active)
        if has_recurrence and active > 0:
            for i in range(active):
                starts[i] = (max(t - 1, 0) * batch_size + rows[i]) * num_neurons
            recurrent_product(
                spikes if t > 0 else initial_spikes,
                starts,
                active,
                num_neurons,
                gather_weight,
                dense_weight,
                indices,
                values,
                counts,
                recurrent,
            )
        for i in range(len(rows)):
            b = rows[i]
            at = (t * batch_size + b) * num_neurons
            if i >= active:
                clear(spikes, at, num_neurons)
                if save:
                    clear(gates, at, num_neurons)
                    clear(currents, at, num_neurons)
                    clear_bits(inside, t * batch_size + b, num_neurons)
                    clear_bits(positive, t * batch_size + b, num_neurons)
                continue
            gated_row(
                num_neurons,
                drive,
                t * drive_strides[0] + b * drive_strides[1],
                recurrent,
                i * stride,
                has_recurrence,
                mask,
                b * num_neurons,
                has_mask,
                current,
                residue,
                b * width,
                spikes,
                gates,
                currents,
                at,
                inside,
                positive,
                (t * batch_size + b) * num_bytes(num_neurons),
                save,
                extremes,
                quantizer,
            )


@helper
def gated_row_backward(  # type: ignore[no-untyped-def]
    num_neurons,
    grad_spikes,
    grad_at,
    at,
    grad_recurrent,
    recurrent_at,
    gates,
    currents,
    before,
    before_at,
    mask,
    mask_at,
    has_mask,
    inside,
    positive,
    byte,
    is_quantized,
    grad_current,
    grad_residue,
    state,
    grad_drive,
    drive_at,
):
    """One frame of one utterance, backwards."""
    one = splat(ONE)
    zero = splat(ZERO)
    for h in range(0, num_neurons, LANES):
        left = num_neurons - h
        grad = read(grad_spikes, grad_at + h, left) + load(grad_recurrent, recurrent_at + h)
        if is_quantized:
            is_inside = load_bits(inside, byte + h // 8)
            grad = select(is_inside, grad, load(grad_residue, state + h))
        store(grad_residue, state + h, grad)
        grad = grad + load(grad_current, state + h)
        gate = read(gates, at + h, left)
        change = read(before, before_at + h, left) - read(currents, at + h, left)
        write(grad_drive, drive_at + h, left, grad * gate * change)
        grad_cell = grad * (one - gate)
        if has_mask:
            grad_cell = grad_cell * read(mask, mask_at + h, left)
        is_positive = load_bits(positive, byte + h // 8)
        grad_cell = select(is_positive, grad_cell, zero)
        write(grad_drive, drive_at + num_neurons + h, left, grad_cell)
        store(grad_current, state + h, grad * gate)


@kernel
def gated_backward(  # type: ignore[no-untyped-def]
    rows,
    lengths,
    shape,
    grad_spikes,
    grad_strides,
    mask,
    has_mask,
    dense_weight,
    has_recurrence,
    initial_current,
    gates,
    currents,
    inside,
    positive,
    is_quantized,
    grad_last_spikes,
    grad_current,
    grad_residue,
    grad_drive,
):
    """The gated layers backward.

    Args:
        rows: utterances of this call, by falling length.
        lengths: frames of every utterance.
        shape: frames, utterances, neurons, padded row width of the state.
        grad_spikes: incoming gradient of Y; ``grad_strides`` are its steps per frame and per
            utterance.
        mask: dropout mask, where ``has_mask``.
        dense_weight: U in tiles for the product ``gp U``, where ``has_recurrence``.
        initial_current: I before the first frame, dense rows.
        gates: F; likewise ``currents``, ``inside`` and ``positive``, as saved by the forward pass.
        is_quantized: false for 32 bits.
        grad_last_spikes: gradient of the final state's spikes in; with a recurrence, that of
            the initial state's spikes out. Padded rows, as the two below.
        grad_current: gradient of the final state's I in, of the initial state's I out.
        grad_residue: likewise for R.
        grad_drive: gradients of both drives, (T, B, 2H), written everywhere.
    """
    num_frames, batch_size, num_neurons, width = shape
    num_tiles = (num_neurons + DENSE_WIDTH - 1) // DENSE_WIDTH
    stride = num_tiles * DENSE_WIDTH
    product = aligned((len(rows) + DENSE_ROWS) * stride)
    product[:] = ZERO
    starts = np.empty(len(rows) + DENSE_ROWS, np.int64)
    active = 0
    for t in range(num_frames - 1, -1, -1):
        while active < len(rows) and lengths[rows[active]] > t:
            active += 1
        for i in range(len(rows)):
            b = rows[i]
            starts[i] = (t * batch_size + b) * 2 * num_neurons
            if i >= active:
                clear(grad_drive, starts[i], 2 * num_neurons)
                continue
            at = (t * batch_size + b) * num_neurons
            gated_row_backward(
                num_neurons,
                grad_spikes,
                t * grad_strides[0] + b * grad_strides[1],
                at,
                grad_last_spikes,
                b * width,
                gates,
                currents,
                currents if t > 0 else initial_current,
                at - batch_size * num_neurons if t > 0 else b * num_neurons,
                mask,
                b * num_neurons,
                has_mask,
                inside,
                positive,
                (t * batch_size + b) * num_bytes(num_neurons),
                is_quantized,
                grad_current,
                grad_residue,
                b * width,
                grad_drive,
                starts[i],
            )
            if not has_recurrence and t == lengths[b] - 1:
                clear(grad_last_spikes, b * width, width)
        if has_recurrence and active > 0:
            multiply(
                grad_drive,
                starts,
                active,
                2 * num_neurons,
                2 * num_neurons,
                dense_weight,
                num_tiles,
                product,
                stride,
                False,
            )
            for i in range(active):
                for h in range(0, width, LANES):
                    store(grad_last_spikes, rows[i] * width + h, load(product, i * stride + h))
