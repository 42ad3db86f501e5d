"""What the passes of a fused backend hand to one another.

Shape legend: T time, B batch, H neurons.
"""

from typing import NamedTuple

from torch import Tensor

from training.kernels.lanes import WIDE


def num_bit_bytes(num_neurons: int) -> int:
    """Bytes of a row of bits: room for whole vectors, whichever of the lanes there are."""
    return (num_neurons + WIDE - 1) // WIDE * (WIDE // 8)


class Saved(NamedTuple):
    """What a forward pass keeps for the backward pass; empty tensors where nothing is.

    Attributes:
        currents: I, (T, B, H).
        inside: bits of ``|V| <= M``, (T, B, ``num_bit_bytes``) uint8, first neuron in the lowest
            bit.
            Triton: a byte per neuron, (T, B, H), its second bit being C > 0.
        positive: bits of C > 0 as ``inside``, gated layers; Triton: empty.
        gates: F, (T, B, H), gated layers.
    """

    currents: Tensor
    inside: Tensor
    positive: Tensor
    gates: Tensor


class ForwardResult(NamedTuple):
    """Result of a forward pass.

    Attributes:
        spikes: Y, (T, B, H), zero at padding frames.
        synaptic_current: I after the last valid frame, (B, H).
        residue: R, likewise.
        last_spikes: Y, likewise.
        minimum: smallest valid membrane potential.
        maximum: largest valid membrane potential.
        saved: for the backward pass.
    """

    spikes: Tensor
    synaptic_current: Tensor
    residue: Tensor
    last_spikes: Tensor
    minimum: Tensor
    maximum: Tensor
    saved: Saved


class ScanGradients(NamedTuple):
    """Gradients of the encoder or the conventional layer."""

    drive: Tensor
    decay: Tensor
    synaptic_current: Tensor
    residue: Tensor
    spikes: Tensor


class GatedGradients(NamedTuple):
    """Gradients of a gated layer; both drives in one (T, B, 2H) tensor, forget first."""

    drive: Tensor
    weight: Tensor
    synaptic_current: Tensor
    residue: Tensor
    spikes: Tensor
