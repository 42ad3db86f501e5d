"""A layer as the CPU kernels see it: named tuples of flat arrays, which numba takes as they are.

Arrays of frames are (T, B, H) with rows of H floats; arrays of state have rows padded to whole
vectors (``Sizes.width``), zeros at the end. A field whose ``has_`` flag is false is empty.

Shape legend: T time, B batch, H neurons, G drives of a layer (H, or 2H where it is gated).
"""

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
NO_FLOATS = np.zeros(0, np.float32)


class Sizes(NamedTuple):
    """T, B, H and the width of a row of state."""

    num_frames: int
    batch_size: int
    num_neurons: int
    width: int


class Share(NamedTuple):
    """The utterances of one call."""

    utterances: Array  # which, by falling length: those that have a frame t are the first ones
    lengths: Array  # frames of every utterance of the batch


class Frames(NamedTuple):
    """Rows of floats, read only, that may be strided over frames and utterances."""

    values: Array  # all of them
    frame_stride: int  # floats from a frame to the next
    utterance_stride: int  # floats from an utterance to the next


class Firing(NamedTuple):
    """How a site fires: the quantiser, and the leak of v3."""

    range_M: np.float32  # the largest magnitude of a potential inside the clip
    scale: np.float32  # levels per unit of potential
    threshold: np.float32  # levels of magnitude below this stay silent
    is_quantized: bool  # false where spikes are the potential itself
    residue_leak: Array  # lambda, padded to the width
    has_leak: bool  # whether residues leak
    saturation: np.float32  # the largest magnitude of a current or a potential


class CpuLayer(NamedTuple):
    """What a layer reads in both passes."""

    sizes: Sizes
    # forward, both drives of a gated layer, forget first; backward, the incoming gradient of the
    # spikes
    drive: Frames
    dropout_mask: Array  # m, (B, H)
    has_mask: bool
    decay: Array  # tau of a conventional layer, padded to the width
    has_decay: bool  # whether there is one; an encoder has none
    recurrent_gather: Array  # U in tiles for ``cpu_products.gather``; forward only
    # U in tiles for ``cpu_products.multiply``; transposed in the backward pass
    recurrent_dense: Array
    has_recurrence: bool  # whether there is a U
    initial_current: Array  # I before the first frame, padded rows
    initial_spikes: Array  # Y before the first frame, rows of H
    firing: Firing


class Kept(NamedTuple):
    """What the forward pass writes for the backward pass, see ``training.kernels.layer.Saved``."""

    gates: Array  # F
    currents: Array  # I
    potentials: Array  # V
    spikes: Array  # Y; the backward pass alone reads it
    inside: Array  # bits of V in the clip
    positive: Array  # bits of a cell above 0
    is_wanted: bool  # whether a backward pass will follow
    has_potentials: bool  # whether it finds gradients of leak, range and threshold


class ForwardArrays(NamedTuple):
    """What a forward pass writes."""

    spikes: Array  # Y, everywhere, 0 at padding frames
    current: Array  # I, state in and out, padded rows
    residue: Array  # R, likewise
    kept: Kept
    extremes: Array  # a vector of minima of V, then one of maxima
    product: Any  # scratch of the recurrent product; a ``cpu_products.RecurrentProduct``


class FiringSums(NamedTuple):
    """See ``training.kernels.firing_gradients``; padded to the width."""

    leak: Array
    inside_range: Array
    threshold: Array


class BackwardArrays(NamedTuple):
    """What a backward pass writes."""

    drive: Array  # gradient of the drive, (T, B, G), everywhere
    decay: Array  # gradient of tau, added to, padded
    firing: FiringSums  # added to
    # gradient of the final state's spikes in, of the initial state's spikes out; padded rows, as
    # the two below
    last_spikes: Array
    current: Array  # likewise of I
    residue: Array  # likewise of R
    product: Any  # scratch of the product with U


class Place(NamedTuple):
    """Where a row of one frame and one utterance begins."""

    drive: int  # in ``CpuLayer.drive``
    frame: int  # in arrays of frames
    byte: int  # in arrays of bits
    state: int  # in arrays of state
    utterance: int  # in arrays of (B, H)
