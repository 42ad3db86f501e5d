"""CPU kernels of the gated recurrences: v1, and v2 and v3 with a recurrent product.

Forward, with p the drives plus the recurrent product::

    F = sigma(p_f)    C = m ReLU(p_c)    I_t = F I_{t-1} + (1 - F) C    then firing

Backward, ``gV`` as in ``cpu_membrane`` with the recurrent gradient added to that of the spikes::

    gI_t = gV_t + F_{t+1} gI_{t+1}
    gp_f = gI_t (I_{t-1} - C) F (1 - F)      gp_c = gI_t (1 - F) m [p_c > 0]
    gY_{t-1} += U_f^T gp_f + U_c^T gp_c

C itself is not needed: by the forward equation ``(I_{t-1} - C) (1 - F) = I_{t-1} - I_t``.
Kept for the backward pass: F and I in float32, what is inside the clip and which cells are above
0 as bits; not the drives.
Utterances are independent, so a call runs its share through the whole sequence alone.
"""

from training.kernels.cpu_firing import (
    ONE,
    ZERO,
    clamped,
    clear,
    larger,
    logistic,
    read,
    smaller,
    write,
)
from training.kernels.cpu_membrane import (
    clear_frame,
    integrate_and_fire,
    num_running,
    num_running_backwards,
    place_of,
    potential_gradient,
)
from training.kernels.cpu_products import (
    GATHER_WIDTH,
    SPARSE_BELOW,
    LeftRows,
    Tiles,
    count_nonzeros,
    gather,
    list_nonzeros,
    multiply,
    num_dense_tiles,
)
from training.kernels.jit import helper, kernel
from training.kernels.simd import LANES, greater, load, load_bits, select, splat, store, store_bits


@helper(allocates=False)
def multiply_recurrent(spikes, count, layer, product):  # type: ignore[no-untyped-def]
    """``Y U^T`` of ``count`` rows of spikes, sparse or dense by the rows' density."""
    num_neurons = layer.sizes.num_neurons
    num_columns = 2 * num_neurons
    total = 0
    for i in range(count):
        total += count_nonzeros(spikes, product.starts[i], num_neurons)
    if total <= SPARSE_BELOW * count * num_neurons:
        for i in range(count):
            product.counts[i] = list_nonzeros(
                spikes, product.starts[i], num_neurons, product.nonzeros, i * num_neurons
            )
        for n in range((num_columns + GATHER_WIDTH - 1) // GATHER_WIDTH):
            tile = n * num_neurons * GATHER_WIDTH
            for i in range(count):
                gather(
                    layer.recurrent_gather,
                    tile,
                    product.nonzeros,
                    i * num_neurons,
                    product.counts[i],
                    product.rows,
                    i * product.stride + n * GATHER_WIDTH,
                    False,
                )
    else:
        left = LeftRows(spikes, product.starts, count, num_neurons)
        tiles = Tiles(layer.recurrent_dense, num_dense_tiles(num_columns), num_neurons)
        multiply(left, tiles, product.rows, product.stride, False)


@helper(allocates=False)
def gated_row(layer, arrays, place, recurrent, recurrent_at):  # type: ignore[no-untyped-def]
    """One frame of one utterance; ``recurrent`` holds its recurrent product from a position on."""
    num_neurons = layer.sizes.num_neurons
    kept = arrays.kept
    limit = splat(layer.firing.saturation)
    one = splat(ONE)
    zero = splat(ZERO)
    for h in range(0, num_neurons, LANES):
        left = num_neurons - h
        forget_drive = read(layer.drive.values, place.drive + h, left)
        cell_drive = read(layer.drive.values, place.drive + num_neurons + h, left)
        if layer.has_recurrence:
            forget_drive = forget_drive + load(recurrent, recurrent_at + h)
            cell_drive = cell_drive + load(recurrent, recurrent_at + num_neurons + h)
        forget_gate = logistic(forget_drive)
        cell = smaller(larger(cell_drive, zero), limit)
        if kept.is_wanted:
            write(kept.gates, place.frame + h, left, forget_gate)
            store_bits(kept.positive, place.byte + h // 8, greater(cell, zero))
        if layer.has_mask:
            cell = cell * read(layer.dropout_mask, place.utterance + h, left)
        before = load(arrays.current, place.state + h)
        current = clamped(forget_gate * before + (one - forget_gate) * cell, limit)
        store(arrays.current, place.state + h, current)
        if kept.is_wanted:
            write(kept.currents, place.frame + h, left, current)
        integrate_and_fire(current, h, layer, arrays, place)


@kernel(allocates=False)
def gated_forward(share, layer, arrays):  # type: ignore[no-untyped-def]
    """The gated layers forward.

    Args:
        arrays: ``cpu_layer.ForwardArrays``, written.
    """
    sizes = layer.sizes
    utterances = share.utterances
    product = arrays.product
    active = len(utterances)
    for t in range(sizes.num_frames):
        active = num_running(share, t, active)
        if layer.has_recurrence and active > 0:
            for i in range(active):
                row = max(t - 1, 0) * sizes.batch_size + utterances[i]
                product.starts[i] = row * sizes.num_neurons
            spikes = arrays.spikes if t > 0 else layer.initial_spikes
            multiply_recurrent(spikes, active, layer, product)
        for i in range(len(utterances)):
            place = place_of(layer, t, utterances[i])
            if i >= active:
                clear_frame(layer, arrays, place, True, True)
                continue
            gated_row(layer, arrays, place, product.rows, i * product.stride)


@helper(allocates=False)
def gated_row_backward(layer, kept, gradients, place, t):  # type: ignore[no-untyped-def]
    """One frame of one utterance, backwards."""
    sizes = layer.sizes
    num_neurons = sizes.num_neurons
    one = splat(ONE)
    zero = splat(ZERO)
    drive_at = 2 * place.frame
    currents_before = kept.currents if t > 0 else layer.initial_current
    before_at = place.frame - sizes.batch_size * num_neurons if t > 0 else place.state
    for h in range(0, num_neurons, LANES):
        left = num_neurons - h
        from_later = load(gradients.last_spikes, place.state + h)
        grad_spikes = read(layer.drive.values, place.drive + h, left) + from_later
        grad = potential_gradient(grad_spikes, h, layer, kept, gradients, place)
        grad = grad + load(gradients.current, place.state + h)
        forget_gate = read(kept.gates, place.frame + h, left)
        before = read(currents_before, before_at + h, left)
        change = before - read(kept.currents, place.frame + h, left)
        write(gradients.drive, drive_at + h, left, grad * forget_gate * change)
        grad_cell = grad * (one - forget_gate)
        if layer.has_mask:
            grad_cell = grad_cell * read(layer.dropout_mask, place.utterance + h, left)
        is_positive = load_bits(kept.positive, place.byte + h // 8)
        grad_cell = select(is_positive, grad_cell, zero)
        write(gradients.drive, drive_at + num_neurons + h, left, grad_cell)
        store(gradients.current, place.state + h, grad * forget_gate)


@helper(allocates=False)
def spikes_gradient(share, active, layer, gradients):  # type: ignore[no-untyped-def]
    """``gp U`` of one frame: what the spikes of the frame before get through the recurrence."""
    sizes = layer.sizes
    product = gradients.product
    depth = 2 * sizes.num_neurons
    left = LeftRows(gradients.drive, product.starts, active, depth)
    tiles = Tiles(layer.recurrent_dense, num_dense_tiles(sizes.num_neurons), depth)
    multiply(left, tiles, product.rows, product.stride, False)
    for i in range(active):
        to = share.utterances[i] * sizes.width
        for h in range(0, sizes.width, LANES):
            store(gradients.last_spikes, to + h, load(product.rows, i * product.stride + h))


@kernel(allocates=False)
def gated_backward(share, layer, kept, gradients):  # type: ignore[no-untyped-def]
    """The gated layers backward.

    Args:
        layer: ``cpu_layer.CpuLayer``; its drive is the incoming gradient of Y, its U in tiles for
            the product ``gp U``.
        kept: ``cpu_layer.Kept`` of the forward pass.
        gradients: ``cpu_layer.BackwardArrays``, written.
    """
    sizes = layer.sizes
    utterances = share.utterances
    starts = gradients.product.starts
    active = 0
    for t in range(sizes.num_frames - 1, -1, -1):
        active = num_running_backwards(share, t, active)
        for i in range(len(utterances)):
            b = utterances[i]
            place = place_of(layer, t, b)
            starts[i] = 2 * place.frame
            if i >= active:
                clear(gradients.drive, starts[i], 2 * sizes.num_neurons)
                continue
            gated_row_backward(layer, kept, gradients, place, t)
            if not layer.has_recurrence and t == share.lengths[b] - 1:
                clear(gradients.last_spikes, place.state, sizes.width)
        if layer.has_recurrence and active > 0:
            spikes_gradient(share, active, layer, gradients)
