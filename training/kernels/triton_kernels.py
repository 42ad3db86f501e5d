"""Triton kernels of the recurrences, for NVIDIA GPUs and Triton's interpreter.

A program owns a tile of utterances x neurons and walks through time with the state in
registers; the mathematics is that of ``cpu_membrane``, ``cpu_scan`` and ``cpu_gated``. With a
recurrent weight a program needs the spikes (backwards: the gradients) of all neurons of the
frame before, so these kernels are launched once per frame and keep the state in memory in between.
Loops over time are ``while`` loops because Triton 3.6's interpreter cannot take a bound of
``range`` from a tensor under numpy 2.4.

Arguments are the named tuples of ``triton_layer``.
"""

import triton
import triton.language as tl

from training.quantizer import THRESHOLD_WINDOW

HALF_WINDOW = tl.constexpr(THRESHOLD_WINDOW / 2)
COUNTS = ("num_frames", "first", "last", "batch_size")
"""Of these no launch compiles a kernel of its own, as Triton would for 1 and multiples of 16."""


@triton.jit
def _saturate(value, saturation):  # type: ignore[no-untyped-def]
    return tl.minimum(tl.maximum(value, -saturation), saturation)


@triton.jit
def _clipped(potential, firing):  # type: ignore[no-untyped-def]
    range_M = tl.load(firing.range_M)
    return tl.minimum(tl.maximum(potential, -range_M), range_M)


@triton.jit  # type: ignore[untyped-decorator]
def _fire(potential, firing, IS_QUANTIZED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Spikes as in ``training.quantizer.quantize``, and whether the potential is in the clip."""
    within = _clipped(potential, firing)
    spikes = potential
    if IS_QUANTIZED:
        scale = tl.load(firing.scale)
        scaled = within * scale
        level = tl.where(scaled >= 0, tl.floor(scaled), tl.ceil(scaled))
        level = tl.where(tl.abs(scaled) >= tl.load(firing.threshold), level, 0.0)
        # Rounded as in the reference: where currents cancel, the next potential is minus these
        # spikes, and its level depends on their last bit. A GPU's ``/`` is off by up to two.
        spikes = tl.div_rn(level, scale)
    return spikes, within == potential


@triton.jit  # type: ignore[untyped-decorator]
def _load_leak(firing, h, exists, HAS_LEAK: tl.constexpr):  # type: ignore[no-untyped-def]
    """lambda of a block of neurons, 1 where residues do not leak."""
    return tl.load(firing.leak + h, mask=exists & HAS_LEAK, other=1.0)


@triton.jit
def _load_membrane(membrane, state, exists):  # type: ignore[no-untyped-def]
    """A tile of a ``Membrane``, in the order of its fields."""
    current = tl.load(membrane.current + state, mask=exists, other=0.0)
    residue = tl.load(membrane.residue + state, mask=exists, other=0.0)
    low = tl.load(membrane.low + state, mask=exists, other=0.0)
    high = tl.load(membrane.high + state, mask=exists, other=0.0)
    return current, residue, low, high


@triton.jit
def _store_membrane(membrane, state, exists, values):  # type: ignore[no-untyped-def]
    """Write what ``_load_membrane`` reads."""
    tl.store(membrane.current + state, values[0], mask=exists)
    tl.store(membrane.residue + state, values[1], mask=exists)
    tl.store(membrane.low + state, values[2], mask=exists)
    tl.store(membrane.high + state, values[3], mask=exists)


@triton.jit
def _load_sums(sums, state, exists):  # type: ignore[no-untyped-def]
    """A tile of ``FiringSums``, in the order of its fields."""
    leak = tl.load(sums.leak + state, mask=exists, other=0.0)
    inside_range = tl.load(sums.inside_range + state, mask=exists, other=0.0)
    threshold = tl.load(sums.threshold + state, mask=exists, other=0.0)
    return leak, inside_range, threshold


@triton.jit
def _store_sums(sums, state, exists, values):  # type: ignore[no-untyped-def]
    """Write what ``_load_sums`` reads."""
    tl.store(sums.leak + state, values[0], mask=exists)
    tl.store(sums.inside_range + state, values[1], mask=exists)
    tl.store(sums.threshold + state, values[2], mask=exists)


@triton.jit
def _integrate(drive, residue, valid, saturation):  # type: ignore[no-untyped-def]
    """V of a tile, 0 at padding."""
    return tl.where(valid, _saturate(residue + drive, saturation), 0.0)


@triton.jit
def _reset(potential, spikes, leak, at_rest, valid):  # type: ignore[no-untyped-def]
    """(R, low, high) after firing; padding leaves them."""
    residue, low, high = at_rest
    residue = tl.where(valid, leak * (potential - spikes), residue)
    low = tl.where(valid, tl.minimum(low, potential), low)
    high = tl.where(valid, tl.maximum(high, potential), high)
    return residue, low, high


@triton.jit  # type: ignore[untyped-decorator]
def _potential_gradient(grad_spikes, from_residue, inside, IS_QUANTIZED: tl.constexpr):  # type: ignore[no-untyped-def]
    """The gradient of V, given that of Y and what its residue passes on."""
    grad = grad_spikes
    if IS_QUANTIZED:
        grad = tl.where(inside, grad_spikes, from_residue)
    return grad


@triton.jit
def _add_firing(values, grads, potential, leak, firing, valid):  # type: ignore[no-untyped-def]
    """Add one frame to the sums; ``grads`` are the gradients of Y and R."""
    grad_spikes, grad_residue = grads
    to_leak, to_range, to_threshold = values
    spikes, inside = _fire(potential, firing, True)
    to_leak += tl.where(valid, grad_residue * (potential - spikes), 0.0)
    arrives = tl.where(valid, grad_spikes - leak * grad_residue, 0.0)
    to_range += arrives * tl.where(inside, spikes - potential, spikes)
    scaled = _clipped(potential, firing) * tl.load(firing.scale)
    near = tl.abs(tl.abs(scaled) - tl.load(firing.threshold)) < HALF_WINDOW
    to_threshold += tl.where(near, tl.where(scaled > 0.0, arrives, -arrives), 0.0)
    return to_leak, to_range, to_threshold


@triton.jit  # type: ignore[untyped-decorator]
def scan_forward(  # type: ignore[no-untyped-def]
    drive,
    decay,
    lengths,
    membrane,
    spikes,
    kept,
    firing,
    num_frames,
    num_neurons,
    batch_size,
    HAS_CURRENT: tl.constexpr,
    IS_QUANTIZED: tl.constexpr,
    HAS_LEAK: tl.constexpr,
    HAS_POTENTIALS: tl.constexpr,
    SAVE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Encoder or conventional layer, one utterance and a block of neurons per program."""
    b = tl.program_id(0)
    h = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    exists = h < num_neurons
    state = b * num_neurons + h
    length = tl.load(lengths + b)
    current, residue, low, high = _load_membrane(membrane, state, exists)
    leak = _load_leak(firing, h, exists, HAS_LEAK)
    tau = tl.load(decay + h, mask=exists & HAS_CURRENT, other=0.0)
    t = 0
    while t < num_frames:
        at = (t * batch_size + b).to(tl.int64) * num_neurons + h
        valid = exists & (t < length)
        x = tl.load(drive + at, mask=valid, other=0.0).to(tl.float32)
        if HAS_CURRENT:
            x = _saturate(x + tau * current, firing.saturation)
            current = tl.where(valid, x, current)
        potential = _integrate(x, residue, valid, firing.saturation)
        fired, inside = _fire(potential, firing, IS_QUANTIZED)
        residue, low, high = _reset(potential, fired, leak, (residue, low, high), valid)
        tl.store(spikes + at, tl.where(valid, fired, 0.0), mask=exists)
        if SAVE and HAS_POTENTIALS:
            tl.store(kept.potentials + at, potential, mask=exists)
        if SAVE:
            tl.store(kept.bits + at, tl.where(valid & inside, 1, 0).to(tl.uint8), mask=exists)
            if HAS_CURRENT:
                tl.store(kept.currents + at, tl.where(valid, current, 0.0), mask=exists)
        t += 1
    _store_membrane(membrane, state, exists, (current, residue, low, high))


@triton.jit  # type: ignore[untyped-decorator]
def scan_backward(  # type: ignore[no-untyped-def]
    grad_spikes,
    decay,
    lengths,
    initial_current,
    kept,
    grad_membrane,
    firing,
    sums,
    grad_drive,
    grad_decay,
    num_frames,
    num_neurons,
    batch_size,
    HAS_CURRENT: tl.constexpr,
    IS_QUANTIZED: tl.constexpr,
    HAS_LEAK: tl.constexpr,
    HAS_POTENTIALS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradients of ``scan_forward``; ``grad_decay`` is (B, H), to be summed over utterances."""
    b = tl.program_id(0)
    h = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    exists = h < num_neurons
    state = b * num_neurons + h
    length = tl.load(lengths + b)
    tau = tl.load(decay + h, mask=exists & HAS_CURRENT, other=0.0)
    along_current = tl.load(grad_membrane.current + state, mask=exists, other=0.0)
    along_residue = tl.load(grad_membrane.residue + state, mask=exists, other=0.0)
    final = tl.load(grad_membrane.last_spikes + state, mask=exists, other=0.0)
    to_decay = tl.zeros((BLOCK,), tl.float32)
    leak = _load_leak(firing, h, exists, HAS_LEAK)
    to_firing = _load_sums(sums, state, exists & HAS_POTENTIALS)
    t = num_frames - 1
    while t >= 0:
        at = (t * batch_size + b).to(tl.int64) * num_neurons + h
        valid = exists & (t < length)
        grad = tl.load(grad_spikes + at, mask=valid, other=0.0).to(tl.float32)
        grad += tl.where(t == length - 1, final, 0.0)
        if IS_QUANTIZED and HAS_POTENTIALS:
            potential = tl.load(kept.potentials + at, mask=valid, other=0.0)
            grads = (grad, along_residue)
            to_firing = _add_firing(to_firing, grads, potential, leak, firing, valid)
        inside = tl.load(kept.bits + at, mask=valid, other=0) != 0
        grad = _potential_gradient(grad, leak * along_residue, inside, IS_QUANTIZED)
        along_residue = tl.where(valid, grad, along_residue)
        if HAS_CURRENT:
            grad += along_current
            before = tl.load(initial_current + state, mask=valid & (t == 0), other=0.0)
            earlier = at - batch_size * num_neurons
            before += tl.load(kept.currents + earlier, mask=valid & (t > 0), other=0.0)
            to_decay += tl.where(valid, grad * before, 0.0)
            along_current = tl.where(valid, grad * tau, along_current)
        tl.store(grad_drive + at, tl.where(valid, grad, 0.0), mask=exists)
        t -= 1
    tl.store(grad_membrane.current + state, along_current, mask=exists)
    tl.store(grad_membrane.residue + state, along_residue, mask=exists)
    _store_sums(sums, state, exists & HAS_POTENTIALS, to_firing)
    tl.store(grad_decay + state, to_decay, mask=exists)


@triton.jit(do_not_specialize=COUNTS)  # type: ignore[untyped-decorator]
def gated_forward(  # type: ignore[no-untyped-def]
    drive,
    dropout_mask,
    weight,
    lengths,
    membrane,
    before,
    spikes,
    kept,
    firing,
    first,
    last,
    batch_size,
    num_neurons: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_RECURRENCE: tl.constexpr,
    IS_QUANTIZED: tl.constexpr,
    HAS_LEAK: tl.constexpr,
    HAS_POTENTIALS: tl.constexpr,
    SAVE: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Frames ``first`` to ``last`` of v1, or one frame of v2 with ``before`` its Y_{t-1}.

    ``weight`` is U transposed, from neurons before to drives, as ``triton_frames`` lays it out.
    """
    WIDTH: tl.constexpr = (num_neurons + BLOCK - 1) // BLOCK * BLOCK
    b = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    h = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    has_row = b < batch_size
    exists = has_row & (h < num_neurons)
    state = b * num_neurons + h
    length = tl.load(lengths + b, mask=has_row, other=0)
    current, residue, low, high = _load_membrane(membrane, state, exists)
    mask = tl.full((ROWS, BLOCK), 1.0, tl.float32)
    if HAS_MASK:
        mask = tl.load(dropout_mask + state, mask=exists, other=0.0)
    leak = _load_leak(firing, h, exists, HAS_LEAK)
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
                to_forget = weight + k[:, None] * 2 * WIDTH + h
                forget = tl.dot(y, tl.load(to_forget), forget, input_precision=PRECISION)
                cell = tl.dot(y, tl.load(to_forget + WIDTH), cell, input_precision=PRECISION)
        forget_gate = 1.0 / (1.0 + tl.exp(-forget))
        cell = tl.minimum(tl.maximum(cell, 0.0), firing.saturation)
        positive = cell > 0.0
        cell = cell * mask
        mixed = _saturate(forget_gate * current + (1.0 - forget_gate) * cell, firing.saturation)
        current = tl.where(valid, mixed, current)
        potential = _integrate(mixed, residue, valid, firing.saturation)
        fired, inside = _fire(potential, firing, IS_QUANTIZED)
        residue, low, high = _reset(potential, fired, leak, (residue, low, high), valid)
        tl.store(spikes + at, tl.where(valid, fired, 0.0), mask=exists)
        if SAVE and HAS_POTENTIALS:
            tl.store(kept.potentials + at, potential, mask=exists)
        if SAVE:
            byte = tl.where(inside, 1, 0) + tl.where(positive, 2, 0)
            tl.store(kept.bits + at, tl.where(valid, byte, 0).to(tl.uint8), mask=exists)
            tl.store(kept.gates + at, tl.where(valid, forget_gate, 0.0), mask=exists)
            tl.store(kept.currents + at, tl.where(valid, current, 0.0), mask=exists)
        t += 1
    _store_membrane(membrane, state, exists, (current, residue, low, high))


@triton.jit(do_not_specialize=COUNTS)  # type: ignore[untyped-decorator]
def gated_backward(  # type: ignore[no-untyped-def]
    grad_spikes,
    dropout_mask,
    weight,
    lengths,
    initial_current,
    kept,
    grad_membrane,
    firing,
    sums,
    grad_drive,
    num_frames,
    first,
    last,
    batch_size,
    num_neurons: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_RECURRENCE: tl.constexpr,
    IS_QUANTIZED: tl.constexpr,
    HAS_LEAK: tl.constexpr,
    HAS_POTENTIALS: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Frames ``last - 1`` down to ``first`` of v1, or one frame of v2.

    With a recurrence the gradient of Y_t takes the product of frame t + 1's drive gradients
    and the weight, which every program computes for its own tile. ``weight`` is U, from drives to
    neurons before, as ``triton_frames`` lays it out.
    """
    WIDTH: tl.constexpr = (num_neurons + BLOCK - 1) // BLOCK * BLOCK
    b = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    h = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    has_row = b < batch_size
    exists = has_row & (h < num_neurons)
    state = b * num_neurons + h
    length = tl.load(lengths + b, mask=has_row, other=0)
    along_current = tl.load(grad_membrane.current + state, mask=exists, other=0.0)
    along_residue = tl.load(grad_membrane.residue + state, mask=exists, other=0.0)
    final = tl.load(grad_membrane.last_spikes + state, mask=exists, other=0.0)
    mask = tl.full((ROWS, BLOCK), 1.0, tl.float32)
    if HAS_MASK:
        mask = tl.load(dropout_mask + state, mask=exists, other=0.0)
    leak = _load_leak(firing, h, exists, HAS_LEAK)
    to_firing = _load_sums(sums, state, exists & HAS_POTENTIALS)
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
                    u = tl.load(weight + k[:, None] * WIDTH + h)
                    grad = tl.dot(g, u, grad, input_precision=PRECISION)
        if IS_QUANTIZED and HAS_POTENTIALS:
            potential = tl.load(kept.potentials + at, mask=valid, other=0.0)
            grads = (grad, along_residue)
            to_firing = _add_firing(to_firing, grads, potential, leak, firing, valid)
        byte = tl.load(kept.bits + at, mask=valid, other=0).to(tl.int32)
        grad = _potential_gradient(grad, leak * along_residue, (byte & 1) != 0, IS_QUANTIZED)
        along_residue = tl.where(valid, grad, along_residue)
        grad += along_current
        forget_gate = tl.load(kept.gates + at, mask=valid, other=0.0)
        before = tl.load(initial_current + state, mask=valid & (t == 0), other=0.0)
        earlier = at - batch_size * num_neurons
        before += tl.load(kept.currents + earlier, mask=valid & (t > 0), other=0.0)
        change = before - tl.load(kept.currents + at, mask=valid, other=0.0)
        of_cell = grad * (1.0 - forget_gate)
        to_cell = tl.where((byte & 2) != 0, of_cell * mask, 0.0)
        target = grad_drive + row * 2 * num_neurons + h
        tl.store(target, tl.where(valid, grad * forget_gate * change, 0.0), mask=exists)
        tl.store(target + num_neurons, tl.where(valid, to_cell, 0.0), mask=exists)
        along_current = tl.where(valid, grad * forget_gate, along_current)
        t -= 1
    tl.store(grad_membrane.current + state, along_current, mask=exists)
    tl.store(grad_membrane.residue + state, along_residue, mask=exists)
    _store_sums(sums, state, exists & HAS_POTENTIALS, to_firing)
