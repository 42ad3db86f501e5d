"""CPU kernels of the recurrences without gates: the input encoder and the conventional layer.

One pass forward and one backward over (frame, utterance, vector of neurons). With ``gV`` the
gradient of the potential (``cpu_membrane``)::

    gI_t = gV_t + tau gI_{t+1}           (conventional; gradient of the drive)
    gtau = sum_t gI_t I_{t-1}

Utterances are independent, so a call runs its share through the whole sequence alone.
"""

from training.kernels.cpu_firing import clamped, clear, read, write
from training.kernels.cpu_membrane import (
    clear_frame,
    integrate_and_fire,
    num_running,
    num_running_backwards,
    place_of,
    potential_gradient,
)
from training.kernels.jit import helper, kernel
from training.kernels.simd import LANES, load, splat, store


@kernel(allocates=False)
def scan_forward(share, layer, arrays):  # type: ignore[no-untyped-def]
    """Encoder (no decay) or conventional layer, forward.

    Args:
        arrays: ``cpu_layer.ForwardArrays``, written.
    """
    num_neurons = layer.sizes.num_neurons
    limit = splat(layer.firing.saturation)
    active = len(share.utterances)
    for t in range(layer.sizes.num_frames):
        active = num_running(share, t, active)
        for i in range(len(share.utterances)):
            place = place_of(layer, t, share.utterances[i])
            if i >= active:
                clear_frame(layer, arrays, place, layer.has_decay, False)
                continue
            for h in range(0, num_neurons, LANES):
                left = num_neurons - h
                drive = read(layer.drive.values, place.drive + h, left)
                if layer.has_decay:
                    before = load(arrays.current, place.state + h)
                    drive = clamped(drive + load(layer.decay, h) * before, limit)
                    store(arrays.current, place.state + h, drive)
                    if arrays.kept.is_wanted:
                        write(arrays.kept.currents, place.frame + h, left, drive)
                integrate_and_fire(drive, h, layer, arrays, place)


@helper(allocates=False)
def scan_vector_backward(h, t, is_last, layer, kept, gradients, place):  # type: ignore[no-untyped-def]
    """One vector of neurons in one frame of one utterance, backwards."""
    sizes = layer.sizes
    left = sizes.num_neurons - h
    grad_spikes = read(layer.drive.values, place.drive + h, left)
    if is_last:
        grad_spikes = grad_spikes + load(gradients.last_spikes, place.state + h)
    grad = potential_gradient(grad_spikes, h, layer, kept, gradients, place)
    if layer.has_decay:
        grad = grad + load(gradients.current, place.state + h)
        if t > 0:
            before_at = place.frame - sizes.batch_size * sizes.num_neurons
            before = read(kept.currents, before_at + h, left)
        else:
            before = load(layer.initial_current, place.state + h)
        store(gradients.decay, h, load(gradients.decay, h) + grad * before)
        store(gradients.current, place.state + h, grad * load(layer.decay, h))
    write(gradients.drive, place.frame + h, left, grad)


@kernel(allocates=False)
def scan_backward(share, layer, kept, gradients):  # type: ignore[no-untyped-def]
    """Encoder or conventional layer, backward.

    Args:
        layer: ``cpu_layer.CpuLayer``; its drive is the incoming gradient of Y.
        kept: ``cpu_layer.Kept`` of the forward pass.
        gradients: ``cpu_layer.BackwardArrays``, written.
    """
    active = 0
    for t in range(layer.sizes.num_frames - 1, -1, -1):
        active = num_running_backwards(share, t, active)
        for i in range(len(share.utterances)):
            b = share.utterances[i]
            place = place_of(layer, t, b)
            if i >= active:
                clear(gradients.drive, place.frame, layer.sizes.num_neurons)
                continue
            is_last = t == share.lengths[b] - 1
            for h in range(0, layer.sizes.num_neurons, LANES):
                scan_vector_backward(h, t, is_last, layer, kept, gradients, place)
