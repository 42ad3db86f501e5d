"""What all layers share on the CPU: walking over frames, integrating, firing and resetting.

Forward, for the drive of the membrane x (the input of an encoder, else the current I)::

    V_t = R_{t-1} + x_t        Y_t = Q(V_t)        R_t = lambda (V_t - Y_t)

with lambda = 1 but in v3. Backward, with ``inside`` the indicator of V_t in the clip: dY/dV =
inside and dR/dV = lambda (1 - inside), so the gradient of the potential, and of the residue before
it, is::

    gV_t = inside_t gY_t + (1 - inside_t) lambda gR_t        gR_{t-1} = gV_t

Inside the clip nothing flows along the membrane: the next frame's ``gV`` is cut off. Where leak,
range or threshold are learned, y_t = gY_t - lambda gR_t is what arrives at Y_t in all, and
``training.lif`` and ``training.quantizer`` say what it adds to their gradients.
"""

import numpy as np

from training.kernels.cpu_firing import (
    ZERO,
    clamped,
    clear,
    clipped,
    fire,
    read,
    track_extremes,
    write,
)
from training.kernels.cpu_layer import Place
from training.kernels.jit import helper
from training.kernels.layer import num_bit_bytes
from training.kernels.simd import (
    greater,
    load,
    load_bits,
    magnitude,
    select,
    splat,
    store,
    store_bits,
)
from training.quantizer import THRESHOLD_WINDOW

HALF_WINDOW = np.float32(THRESHOLD_WINDOW / 2)

num_bytes = helper(num_bit_bytes, allocates=False)


@helper(allocates=False)
def num_running(share, t, bound):  # type: ignore[no-untyped-def]
    """How many utterances have a frame t; ``bound`` have the frame before."""
    while bound > 0 and share.lengths[share.utterances[bound - 1]] <= t:
        bound -= 1
    return bound


@helper(allocates=False)
def num_running_backwards(share, t, bound):  # type: ignore[no-untyped-def]
    """How many utterances have a frame t; ``bound`` have the frame after."""
    while bound < len(share.utterances) and share.lengths[share.utterances[bound]] > t:
        bound += 1
    return bound


@helper(allocates=False)
def place_of(layer, t, b):  # type: ignore[no-untyped-def]
    """Where frame t of utterance b is."""
    sizes = layer.sizes
    row = t * sizes.batch_size + b
    return Place(
        t * layer.drive.frame_stride + b * layer.drive.utterance_stride,
        row * sizes.num_neurons,
        row * num_bytes(sizes.num_neurons),
        b * sizes.width,
        b * sizes.num_neurons,
    )


@helper(allocates=False)
def clear_bits(bits, place, num_neurons):  # type: ignore[no-untyped-def]
    """A padding frame's row: no potential inside the clip, no cell above 0."""
    bits[place.byte : place.byte + num_bytes(num_neurons)] = 0


@helper(allocates=False)
def clear_frame(layer, arrays, place, has_current, has_gates):  # type: ignore[no-untyped-def]
    """Zero what a padding frame leaves."""
    num_neurons = layer.sizes.num_neurons
    kept = arrays.kept
    clear(arrays.spikes, place.frame, num_neurons)
    if not kept.is_wanted:
        return
    clear_bits(kept.inside, place, num_neurons)
    if kept.has_potentials:
        clear(kept.potentials, place.frame, num_neurons)
    if has_current:
        clear(kept.currents, place.frame, num_neurons)
    if has_gates:
        clear(kept.gates, place.frame, num_neurons)
        clear_bits(kept.positive, place, num_neurons)


@helper(allocates=False)
def integrate_and_fire(drive, h, layer, arrays, place):  # type: ignore[no-untyped-def]
    """One vector of neurons: integrate the drive, fire, reset."""
    left = layer.sizes.num_neurons - h
    firing = layer.firing
    potential = clamped(load(arrays.residue, place.state + h) + drive, splat(firing.saturation))
    track_extremes(arrays.extremes, potential, left)
    spikes, is_inside = fire(potential, firing)
    residue = potential - spikes
    if firing.has_leak:
        residue = load(firing.residue_leak, h) * residue
    store(arrays.residue, place.state + h, residue)
    write(arrays.spikes, place.frame + h, left, spikes)
    if arrays.kept.is_wanted:
        store_bits(arrays.kept.inside, place.byte + h // 8, is_inside)
        if arrays.kept.has_potentials:
            write(arrays.kept.potentials, place.frame + h, left, potential)


@helper(allocates=False)
def add_firing_gradients(grad_spikes, h, layer, kept, gradients, place):  # type: ignore[no-untyped-def]
    """One vector of neurons: add to the sums of leak, range and threshold."""
    left = layer.sizes.num_neurons - h
    firing = layer.firing
    sums = gradients.firing
    zero = splat(ZERO)
    potential = read(kept.potentials, place.frame + h, left)
    spikes = read(kept.spikes, place.frame + h, left)
    is_inside = load_bits(kept.inside, place.byte + h // 8)
    residue = potential - spikes
    from_residue = load(gradients.residue, place.state + h)
    grad = grad_spikes
    if firing.has_leak:
        store(sums.leak, h, load(sums.leak, h) + from_residue * residue)
        grad = grad - load(firing.residue_leak, h) * from_residue
    else:
        grad = grad - from_residue
    per_range = select(is_inside, zero - residue, spikes)
    store(sums.inside_range, h, load(sums.inside_range, h) + grad * per_range)
    scaled = clipped(potential, firing) * splat(firing.scale)
    distance = magnitude(magnitude(scaled) - splat(firing.threshold))
    signed = select(greater(scaled, zero), grad, zero - grad)
    near = select(greater(splat(HALF_WINDOW), distance), signed, zero)
    store(sums.threshold, h, load(sums.threshold, h) + near)


@helper(allocates=False)
def potential_gradient(grad_spikes, h, layer, kept, gradients, place):  # type: ignore[no-untyped-def]
    """One vector of neurons: the gradient of V, given that of Y; the residue's moves along."""
    grad = grad_spikes
    if layer.firing.is_quantized:
        if kept.has_potentials:
            add_firing_gradients(grad_spikes, h, layer, kept, gradients, place)
        from_residue = load(gradients.residue, place.state + h)
        if layer.firing.has_leak:
            from_residue = load(layer.firing.residue_leak, h) * from_residue
        is_inside = load_bits(kept.inside, place.byte + h // 8)
        grad = select(is_inside, grad, from_residue)
    store(gradients.residue, place.state + h, grad)
    return grad
