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
    """The utterances of one call.

    Attributes:
        utterances: which, by falling length: those that have a frame t are the first ones.
        lengths: frames of every utterance of the batch.
    """

    utterances: Array
    lengths: Array


class Frames(NamedTuple):
    """Rows of floats, read only, that may be strided over frames and utterances.

    Attributes:
        values: all of them.
        frame_stride: floats from a frame to the next.
        utterance_stride: floats from an utterance to the next.
    """

    values: Array
    frame_stride: int
    utterance_stride: int


class Firing(NamedTuple):
    """How a site fires: the quantiser, and the options of v3.

    Attributes:
        lowest: the smallest potential inside the clip.
        highest: the largest one, the range M.
        scale: levels per unit of potential.
        threshold: levels of magnitude below this stay silent.
        is_quantized: false where spikes are the potential itself.
        residue_leak: lambda, padded to the width.
        has_leak: whether residues leak.
        largest_cell: c M.
        has_bound: whether cells are bounded by it.
        saturation: the largest magnitude of a current or a potential.
    """

    lowest: np.float32
    highest: np.float32
    scale: np.float32
    threshold: np.float32
    is_quantized: bool
    residue_leak: Array
    has_leak: bool
    largest_cell: np.float32
    has_bound: bool
    saturation: np.float32


class CpuLayer(NamedTuple):
    """What a layer reads in both passes.

    Attributes:
        sizes: of its arrays.
        drive: forward, both drives of a gated layer, forget first; backward, the incoming
            gradient of the spikes.
        dropout_mask: m, (B, H).
        has_mask: whether there is one.
        decay: tau of a conventional layer, padded to the width.
        has_decay: whether there is one; an encoder has none.
        recurrent_gather: U in tiles for ``cpu_products.gather``; forward only.
        recurrent_dense: U in tiles for ``cpu_products.multiply``; transposed in the backward pass.
        has_recurrence: whether there is a U.
        initial_current: I before the first frame, padded rows.
        initial_spikes: Y before the first frame, rows of H.
        firing: how it fires.
    """

    sizes: Sizes
    drive: Frames
    dropout_mask: Array
    has_mask: bool
    decay: Array
    has_decay: bool
    recurrent_gather: Array
    recurrent_dense: Array
    has_recurrence: bool
    initial_current: Array
    initial_spikes: Array
    firing: Firing


class Kept(NamedTuple):
    """What the forward pass writes for the backward pass, see ``training.kernels.layer.Saved``.

    Attributes:
        gates: F.
        currents: I.
        potentials: V.
        spikes: Y; the backward pass alone reads it.
        inside: bits of V in the clip.
        positive: bits of a cell that follows its drive.
        bounded: bits of a cell at its bound.
        is_wanted: whether a backward pass will follow.
        has_potentials: whether it finds gradients of leak, range and threshold.
    """

    gates: Array
    currents: Array
    potentials: Array
    spikes: Array
    inside: Array
    positive: Array
    bounded: Array
    is_wanted: bool
    has_potentials: bool


class ForwardArrays(NamedTuple):
    """What a forward pass writes.

    Attributes:
        spikes: Y, everywhere, 0 at padding frames.
        current: I, state in and out, padded rows.
        residue: R, likewise.
        kept: for the backward pass.
        extremes: a vector of minima of V, then one of maxima.
        product: scratch of the recurrent product; a ``cpu_products.RecurrentProduct``.
    """

    spikes: Array
    current: Array
    residue: Array
    kept: Kept
    extremes: Array
    product: Any


class FiringSums(NamedTuple):
    """See ``training.kernels.firing_gradients``; padded to the width."""

    leak: Array
    inside_range: Array
    bound: Array
    threshold: Array


class BackwardArrays(NamedTuple):
    """What a backward pass writes.

    Attributes:
        drive: gradient of the drive, (T, B, G), everywhere.
        decay: gradient of tau, added to, padded.
        firing: added to.
        last_spikes: gradient of the final state's spikes in, of the initial state's spikes out;
            padded rows, as the two below.
        current: likewise of I.
        residue: likewise of R.
        product: scratch of the product with U.
    """

    drive: Array
    decay: Array
    firing: FiringSums
    last_spikes: Array
    current: Array
    residue: Array
    product: Any


class Place(NamedTuple):
    """Where a row of one frame and one utterance begins.

    Attributes:
        drive: in ``CpuLayer.drive``.
        frame: in arrays of frames.
        byte: in arrays of bits.
        state: in arrays of state.
        utterance: in arrays of (B, H).
    """

    drive: int
    frame: int
    byte: int
    state: int
    utterance: int
