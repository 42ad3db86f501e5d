"""Triton kernels of the recurrences, for NVIDIA GPUs and Triton's interpreter.

A program owns a tile of utterances x neurons and walks through time with the state in
registers; the mathematics is that of ``cpu_scan`` and ``cpu_gated``. With a recurrent weight
a program needs the spikes (backwards: the gradients) of all neurons of the frame before, so
these kernels are launched once per frame and keep the state in memory in between.
Loops over time are ``while`` loops because Triton 3.6's interpreter cannot take a bound of
``range`` from a tensor under numpy 2.4.

Tensors are contiguous: (T, B, H), drives of the gated layers and their gradients (T, B, 2H).
A byte of ``bits`` holds inside (1) and C > 0 (2). State and extremes are (B, H) float32.
"""

import triton
import triton.language as tl


@triton.jit
def _saturate(value, saturation):  # type: ignore[no-untyped-def]
    return tl.minimum(tl.maximum(value, -saturation), saturation)


@triton.jit  # type: ignore[untyped-decorator]
def _fire(potential, range_M, scale, threshold, IS_QUANTIZED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Spikes as in ``training.quantizer.quantize``, and whether the potential is in the clip."""
    inside = tl.abs(potential) <= range_M
    spikes = potential
    if IS_QUANTIZED:
        scaled = tl.minimum(tl.maximum(potential, -range_M), range_M) * scale
        level = tl.where(scaled >= 0, tl.floor(scaled), tl.ceil(scaled))
        level = tl.where(tl.abs(level) > threshold, level, 0.0)
        spikes = level / scale
    return spikes, inside


@triton.jit  # type: ignore[untyped-decorator]
def scan_forward(  # type: ignore[no-untyped-def]
    drive,
    decay,
    lengths,
    current,
    residue,
    spikes,
    currents,
    bits,
    low,
    high,
    range_M,
    scale,
    threshold,
    saturation,
    num_frames,
    num_neurons,
    batch_size,
    HAS_CURRENT: tl.constexpr,
    IS_QUANTIZED: tl.constexpr,
    SAVE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Encoder or conventional layer, one utterance and a block of neurons per program."""
    b = tl.program_id(0)
    h = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    exists = h < num_neurons
    state = b * num_neurons + h
    length = tl.load(lengths + b)
    M = tl.load(range_M)
    s = tl.load(scale)
    flow = tl.load(current + state, mask=exists, other=0.0)
    rest = tl.load(residue + state, mask=exists, other=0.0)
    tau = tl.load(decay + h, mask=exists & HAS_CURRENT, other=0.0)
    smallest = tl.full((BLOCK,), float("inf"), tl.float32)
    largest = tl.full((BLOCK,), float("-inf"), tl.float32)
    t = 0
    while t < num_frames:
        at = (t * batch_size + b).to(tl.int64) * num_neurons + h
        valid = exists & (t < length)
        x = tl.load(drive + at, mask=valid, other=0.0).to(tl.float32)
        if HAS_CURRENT:
            x = _saturate(x + tau * flow, saturation)
            flow = tl.where(valid, x, flow)
        potential = _saturate(rest + x, saturation)
        fired, inside = _fire(potential, M, s, threshold, IS_QUANTIZED)
        rest = tl.where(valid, potential - fired, rest)
        smallest = tl.where(valid, tl.minimum(smallest, potential), smallest)
        largest = tl.where(valid, tl.maximum(largest, potential), largest)
        tl.store(spikes + at, tl.where(valid, fired, 0.0), mask=exists)
        if SAVE:
            tl.store(bits + at, tl.where(valid & inside, 1, 0).to(tl.uint8), mask=exists)
            if HAS_CURRENT:
                tl.store(currents + at, tl.where(valid, flow, 0.0), mask=exists)
        t += 1
    tl.store(current + state, flow, mask=exists)
    tl.store(residue + state, rest, mask=exists)
    tl.store(low + state, smallest, mask=exists)
    tl.store(high + state, largest, mask=exists)


@triton.jit  # type: ignore[untyped-decorator]
def scan_backward(  # type: ignore[no-untyped-def]
    grad_spikes,
    decay,
    lengths,
    initial_current,
    currents,
    bits,
    grad_last_spikes,
    grad_current,
    grad_residue,
    grad_drive,
    grad_decay,
    num_frames,
    num_neurons,
    batch_size,
    HAS_CURRENT: tl.constexpr,
    IS_QUANTIZED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradients of ``scan_forward``; ``grad_decay`` is (B, H), to be summed over utterances."""
    b = tl.program_id(0)
    h = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    exists = h < num_neurons
    state = b * num_neurons + h
    length = tl.load(lengths + b)
    tau = tl.load(decay + h, mask=exists & HAS_CURRENT, other=0.0)
    along_current = tl.load(grad_current + state, mask=exists, other=0.0)
    along_residue = tl.load(grad_residue + state, mask=exists, other=0.0)
    last = tl.load(grad_last_spikes + state, mask=exists, other=0.0)
    to_decay = tl.zeros((BLOCK,), tl.float32)
    t = num_frames - 1
    while t >= 0:
        at = (t * batch_size + b).to(tl.int64) * num_neurons + h
        valid = exists & (t < length)
        grad = tl.load(grad_spikes + at, mask=valid, other=0.0).to(tl.float32)
        grad += tl.where(t == length - 1, last, 0.0)
        if IS_QUANTIZED:
            inside = tl.load(bits + at, mask=valid, other=0) != 0
            grad = tl.where(inside, grad, along_residue)
        along_residue = tl.where(valid, grad, along_residue)
        if HAS_CURRENT:
            grad += along_current
            before = tl.load(initial_current + state, mask=valid & (t == 0), other=0.0)
            earlier = at - batch_size * num_neurons
            before += tl.load(currents + earlier, mask=valid & (t > 0), other=0.0)
            to_decay += tl.where(valid, grad * before, 0.0)
            along_current = tl.where(valid, grad * tau, along_current)
        tl.store(grad_drive + at, tl.where(valid, grad, 0.0), mask=exists)
        t -= 1
    tl.store(grad_current + state, along_current, mask=exists)
    tl.store(grad_residue + state, along_residue, mask=exists)
    tl.store(grad_decay + state, to_decay, mask=exists)


@triton.jit  # type: ignore[untyped-decorator]
def gated_forward(  # type: ignore[no-untyped-def]
    drive,
    dropout,
    weight,
    lengths,
    current,
    residue,
    before,
    spikes,
    gates,
    currents,
    bits,
    low,
    high,
    range_M,
    scale,
    threshold,
    saturation,
    first,
    last,
    batch_size,
    num_neurons: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_RECURRENCE: tl.constexpr,
    IS_QUANTIZED: tl.constexpr,
    SAVE: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Frames ``first`` to ``last`` of v1, or one frame of v2 with ``before`` its Y_{t-1}."""
    b = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    h = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    has_row = b < batch_size
    exists = has_row & (h < num_neurons)
    state = b * num_neurons + h
    length = tl.load(lengths + b, mask=has_row, other=0)
    M = tl.load(range_M)
    s = tl.load(scale)
    flow = tl.load(current + state, mask=exists, other=0.0)
    rest = tl.load(residue + state, mask=exists, other=0.0)
    smallest = tl.load(low + state, mask=exists, other=0.0)
    largest = tl.load(high + state, mask=exists, other=0.0)
    keep = tl.full((ROWS, BLOCK), 1.0, tl.float32)
    if HAS_MASK:
        keep = tl.load(dropout + state, mask=exists, other=0.0)
    t = first
    while t < last:
        row = (t * batch_size + b).to(tl.int64)
        at = row * num_neurons + h
        source = row * 2 * num_neurons + h
        valid = exists & (t < length)
        forget = tl.load(drive + source, mask=valid, other=0.0).to(tl.float32)
        cell = tl.load(drive + source + num_neurons, mask=valid, other=0.0).to(tl.float32)
        if HAS_RECURRENCE:
            for start in range(0, num_neurons, DEPTH):
                k = start + tl.arange(0, DEPTH)
                y_at = b * num_neurons + k[None, :]
                y = tl.load(before + y_at, mask=has_row & (k[None, :] < num_neurons), other=0.0)
                fits = (k[:, None] < num_neurons) & (h < num_neurons)
                to_forget = weight + h * num_neurons + k[:, None]
                u = tl.load(to_forget, mask=fits, other=0.0)
                forget = tl.dot(y, u, forget, input_precision=PRECISION)
                u = tl.load(to_forget + num_neurons * num_neurons, mask=fits, other=0.0)
                cell = tl.dot(y, u, cell, input_precision=PRECISION)
        gate = 1.0 / (1.0 + tl.exp(-forget))
        cell = tl.minimum(tl.maximum(cell, 0.0), saturation)
        mixed = _saturate(gate * flow + (1.0 - gate) * (cell * keep), saturation)
        flow = tl.where(valid, mixed, flow)
        potential = _saturate(rest + mixed, saturation)
        fired, inside = _fire(potential, M, s, threshold, IS_QUANTIZED)
        rest = tl.where(valid, potential - fired, rest)
        smallest = tl.where(valid, tl.minimum(smallest, potential), smallest)
        largest = tl.where(valid, tl.maximum(largest, potential), largest)
        tl.store(spikes + at, tl.where(valid, fired, 0.0), mask=exists)
        if SAVE:
            byte = tl.where(inside, 1, 0) + tl.where(cell > 0.0, 2, 0)
            tl.store(bits + at, tl.where(valid, byte, 0).to(tl.uint8), mask=exists)
            tl.store(gates + at, tl.where(valid, gate, 0.0), mask=exists)
            tl.store(currents + at, tl.where(valid, flow, 0.0), mask=exists)
        t += 1
    tl.store(current + state, flow, mask=exists)
    tl.store(residue + state, rest, mask=exists)
    tl.store(low + state, smallest, mask=exists)
    tl.store(high + state, largest, mask=exists)


@triton.jit  # type: ignore[untyped-decorator]
def gated_backward(  # type: ignore[no-untyped-def]
    grad_spikes,
    dropout,
    weight,
    lengths,
    initial_current,
    gates,
    currents,
    bits,
    grad_last_spikes,
    grad_current,
    grad_residue,
    grad_drive,
    num_frames,
    first,
    last,
    batch_size,
    num_neurons: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_RECURRENCE: tl.constexpr,
    IS_QUANTIZED: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Frames ``last - 1`` down to ``first`` of v1, or one frame of v2.

    With a recurrence the gradient of Y_t takes the product of frame t + 1's drive gradients
    and the weight, which every program computes for its own tile.
    """
    b = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    h = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    has_row = b < batch_size
    exists = has_row & (h < num_neurons)
    state = b * num_neurons + h
    length = tl.load(lengths + b, mask=has_row, other=0)
    along_current = tl.load(grad_current + state, mask=exists, other=0.0)
    along_residue = tl.load(grad_residue + state, mask=exists, other=0.0)
    final = tl.load(grad_last_spikes + state, mask=exists, other=0.0)
    keep = tl.full((ROWS, BLOCK), 1.0, tl.float32)
    if HAS_MASK:
        keep = tl.load(dropout + state, mask=exists, other=0.0)
    t = last - 1
    while t >= first:
        row = (t * batch_size + b).to(tl.int64)
        at = row * num_neurons + h
        valid = exists & (t < length)
        grad = tl.load(grad_spikes + at, mask=valid, other=0.0).to(tl.float32)
        grad += tl.where(t == length - 1, final, 0.0)
        if HAS_RECURRENCE:  # noqa: SIM102 - decided at compilation, the inner one is not
            if t + 1 < num_frames:
                later = (row + batch_size) * 2 * num_neurons
                for start in range(0, 2 * num_neurons, DEPTH):
                    k = start + tl.arange(0, DEPTH)
                    is_drive = k[None, :] < 2 * num_neurons
                    g = tl.load(grad_drive + later + k[None, :], mask=has_row & is_drive, other=0.0)
                    fits = (k[:, None] < 2 * num_neurons) & (h < num_neurons)
                    u = tl.load(weight + k[:, None] * num_neurons + h, mask=fits, other=0.0)
                    grad = tl.dot(g, u, grad, input_precision=PRECISION)
        byte = tl.load(bits + at, mask=valid, other=0).to(tl.int32)
        if IS_QUANTIZED:
            grad = tl.where((byte & 1) != 0, grad, along_residue)
        along_residue = tl.where(valid, grad, along_residue)
        grad += along_current
        gate = tl.load(gates + at, mask=valid, other=0.0)
        before = tl.load(initial_current + state, mask=valid & (t == 0), other=0.0)
        earlier = at - batch_size * num_neurons
        before += tl.load(currents + earlier, mask=valid & (t > 0), other=0.0)
        change = before - tl.load(currents + at, mask=valid, other=0.0)
        to_cell = tl.where((byte & 2) != 0, grad * (1.0 - gate) * keep, 0.0)
        target = grad_drive + row * 2 * num_neurons + h
        tl.store(target, tl.where(valid, grad * gate * change, 0.0), mask=exists)
        tl.store(target + num_neurons, tl.where(valid, to_cell, 0.0), mask=exists)
        along_current = tl.where(valid, grad * gate, along_current)
        t -= 1
    tl.store(grad_current + state, along_current, mask=exists)
    tl.store(grad_residue + state, along_residue, mask=exists)
