"""CPU kernels of the recurrences without gates: the input encoder and the conventional layer.

One pass forward and one backward over (frame, utterance, vector of neurons). With ``inside`` the
indicator of ``|V_t| <= M``, dY/dV = inside and dR/dV = 1 - inside, so the gradient is::

    gV_t = inside_t gY_t + (1 - inside_t) gV_{t+1}
    gI_t = gV_t + tau gI_{t+1}           (conventional; gradient of the drive)
    gtau = sum_t gI_t I_{t-1}

Inside the clip nothing flows along the membrane: the next frame's ``gV`` is cut off.

Each call handles the utterances ``rows``, sorted by falling length, so that those still
running at frame t are a prefix. Arrays are flat; a drive may be strided over frames and
utterances. State arrays have rows padded to whole vectors (``width``).
"""

from training.kernels.cpu_firing import (
    clamped,
    clear,
    fire,
    read,
    track_extremes,
    write,
)
from training.kernels.jit import helper, kernel
from training.kernels.saved import num_bit_bytes
from training.kernels.simd import LANES, load, load_bits, select, splat, store, store_bits


@helper
def num_running(rows, lengths, t, bound):  # type: ignore[no-untyped-def]
    """How many of the first ``bound`` rows have a frame t."""
    while bound > 0 and lengths[rows[bound - 1]] <= t:
        bound -= 1
    return bound


num_bytes = helper(num_bit_bytes)


@helper
def clear_bits(inside, row, num_neurons):  # type: ignore[no-untyped-def]
    """Zero one row of ``inside`` bits."""
    count = num_bytes(num_neurons)
    inside[row * count : (row + 1) * count] = 0


@kernel
def scan_forward(  # type: ignore[no-untyped-def]
    rows,
    lengths,
    shape,
    drive,
    drive_strides,
    decay,
    has_current,
    current,
    residue,
    spikes,
    saved_current,
    inside,
    save,
    extremes,
    quantizer,
):
    """Encoder (``has_current`` false) or conventional layer, forward.

    Args:
        rows: utterances of this call, by falling length.
        lengths: frames of every utterance.
        shape: frames, utterances, neurons, padded row width of the state.
        drive: input; ``drive_strides`` are its steps per frame and per utterance.
        decay: tau, padded to the width.
        has_current: whether there is a synaptic current.
        current: I, state in and out.
        residue: R, state in and out.
        spikes: Y, written everywhere, 0 at padding frames.
        saved_current: I of every frame, where ``save`` and ``has_current``.
        inside: bits of ``|V| <= M``, where ``save``.
        save: whether a backward pass will follow.
        extremes: a vector of minima of V, then one of maxima.
        quantizer: range M, scale, threshold, whether quantised, saturation.
    """
    num_frames, batch_size, num_neurons, width = shape
    range_M, scale, threshold, is_quantized, saturation = quantizer
    limit = splat(saturation)
    active = len(rows)
    for t in range(num_frames):
        active = num_running(rows, lengths, t, active)
        for i in range(len(rows)):
            b = rows[i]
            at = (t * batch_size + b) * num_neurons
            if i >= active:
                clear(spikes, at, num_neurons)
                if save:
                    if has_current:
                        clear(saved_current, at, num_neurons)
                    clear_bits(inside, t * batch_size + b, num_neurons)
                continue
            source = t * drive_strides[0] + b * drive_strides[1]
            byte = (t * batch_size + b) * num_bytes(num_neurons)
            state = b * width
            for h in range(0, num_neurons, LANES):
                left = num_neurons - h
                flow = read(drive, source + h, left)
                if has_current:
                    flow = clamped(flow + load(decay, h) * load(current, state + h), limit)
                    store(current, state + h, flow)
                    if save:
                        write(saved_current, at + h, left, flow)
                potential = clamped(load(residue, state + h) + flow, limit)
                track_extremes(extremes, potential, left)
                spike, is_inside = fire(potential, range_M, scale, threshold, is_quantized)
                store(residue, state + h, potential - spike)
                write(spikes, at + h, left, spike)
                if save:
                    store_bits(inside, byte + h // 8, is_inside)


@kernel
def scan_backward(  # type: ignore[no-untyped-def]
    rows,
    lengths,
    shape,
    grad_spikes,
    grad_strides,
    decay,
    has_current,
    initial_current,
    saved_current,
    inside,
    is_quantized,
    grad_last_spikes,
    grad_current,
    grad_residue,
    grad_drive,
    grad_decay,
):
    """Encoder or conventional layer, backward.

    Args:
        rows: utterances of this call, by falling length.
        lengths: frames of every utterance.
        shape: frames, utterances, neurons, padded row width of the state.
        grad_spikes: incoming gradient of Y; ``grad_strides`` are its steps per frame and per
            utterance.
        decay: tau, padded to the width.
        has_current: whether there is a synaptic current.
        initial_current: I before the first frame.
        saved_current: I of every frame.
        inside: bits saved by the forward pass.
        is_quantized: false for 32 bits, where spikes are the potential itself.
        grad_last_spikes: gradient of the final state's spikes.
        grad_current: gradient of the final state's I in, of the initial state's I out.
        grad_residue: likewise for R.
        grad_drive: gradient of the drive, written everywhere.
        grad_decay: gradient of tau, added to.
    """
    num_frames, batch_size, num_neurons, width = shape
    active = 0
    for t in range(num_frames - 1, -1, -1):
        while active < len(rows) and lengths[rows[active]] > t:
            active += 1
        for i in range(len(rows)):
            b = rows[i]
            at = (t * batch_size + b) * num_neurons
            if i >= active:
                clear(grad_drive, at, num_neurons)
                continue
            source = t * grad_strides[0] + b * grad_strides[1]
            byte = (t * batch_size + b) * num_bytes(num_neurons)
            state = b * width
            is_last = t == lengths[b] - 1
            for h in range(0, num_neurons, LANES):
                left = num_neurons - h
                grad = read(grad_spikes, source + h, left)
                if is_last:
                    grad = grad + load(grad_last_spikes, state + h)
                if is_quantized:
                    is_inside = load_bits(inside, byte + h // 8)
                    grad = select(is_inside, grad, load(grad_residue, state + h))
                store(grad_residue, state + h, grad)
                if has_current:
                    grad = grad + load(grad_current, state + h)
                    if t > 0:
                        before = read(saved_current, at - batch_size * num_neurons + h, left)
                    else:
                        before = load(initial_current, state + h)
                    store(grad_decay, h, load(grad_decay, h) + grad * before)
                    store(grad_current, state + h, grad * load(decay, h))
                write(grad_drive, at + h, left, grad)
