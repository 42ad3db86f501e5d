"""What is passed between the recurrence's entry point, the operators and the backends.

A pass of a layer is a ``Layer`` and its drive in, a ``RecurrenceOutput`` and a ``Saved`` out; the
backward pass takes them again, with the gradients of the outputs, and returns ``LayerGradients``.
``flattened`` and ``unflattened`` turn them into the flat arguments that PyTorch's operators take.

Shape legend: T time, B batch, H neurons, G drives of a layer (H, or 2H where it is gated).
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from training.kernels.lanes import WIDE
from training.lif import LifState
from training.quantizer import Quantizer

LayerKind = Literal["encoder", "conventional", "gated"]


class Rows(NamedTuple):
    """The utterances of a batch."""

    lengths_B: Tensor  # valid frames of each, (B,) int64
    dropout_mask_BH: Tensor | None  # m of a gated layer, already scaled; None for no dropout


class LayerWeights(NamedTuple):
    """What a recurrence learns; None where the layer has no such weight."""

    decay_H: Tensor | None = None  # tau of a conventional layer
    recurrent_2HH: Tensor | None = None  # ``[U_f; U_c]`` of v2 and v3
    residue_leak_H: Tensor | None = None  # lambda of v3


class Layer(NamedTuple):
    """A layer as both of its passes need it: all but the drive."""

    kind: LayerKind  # whose equations (``training.lif``) hold
    rows: Rows
    weights: LayerWeights  # what the recurrence learns
    state: LifState  # state before the first frame, (B, H) each
    quantizer: Quantizer

    def last_spikes(self, spikes_TBH: Tensor) -> Tensor:
        """Y of the final state: of an utterance's last frame, the initial one where it has none."""
        initial_BH = self.state.spikes.detach()
        if spikes_TBH.shape[0] == 0:
            return initial_BH.clone(memory_format=torch.contiguous_format)
        last = (self.rows.lengths_B - 1).clamp(min=0)
        found = spikes_TBH[last, torch.arange(len(last), device=last.device)]
        return torch.where((self.rows.lengths_B > 0).unsqueeze(1), found, initial_BH)


class Keep(NamedTuple):
    """What a forward pass shall keep."""

    for_backward: bool  # whether a backward pass will follow
    # whether it shall find gradients of the leak, the range and the threshold
    potentials: bool = False


class Saved(NamedTuple):
    """What a forward pass keeps for the backward pass; empty tensors where nothing is."""

    currents: Tensor  # I, (T, B, H)
    # bits of V in the clip, (T, B, ``num_bit_bytes``) uint8, first neuron in the lowest bit.
    # Triton: a byte per neuron, (T, B, H), its second bit that of ``positive``.
    inside: Tensor
    positive: Tensor  # bits of a cell above 0, as ``inside``, gated layers; Triton: empty
    gates: Tensor  # F, (T, B, H), gated layers
    potentials: Tensor  # V, (T, B, H), where ``Keep.potentials``
    drive: Tensor  # (T, B, G), for the reference alone, which runs again


class OutputGradients(NamedTuple):
    """Gradients of what a forward pass returns."""

    spikes_TBH: Tensor  # of Y
    state: LifState  # of the final state


class LayerGradients(NamedTuple):
    """Gradients of what a forward pass is given."""

    drive_TBG: Tensor  # of the drive
    weights: LayerWeights  # of the weights; None where the layer has none
    state: LifState  # of the state before the first frame
    # of the quantiser's range, scalar; None where potentials were not kept
    range_M: Tensor | None = None
    threshold_levels: Tensor | None = None  # of its threshold, likewise


def num_bit_bytes(num_neurons: int) -> int:
    """Bytes of a row of bits: room for whole vectors, whichever of the lanes there are."""
    return (num_neurons + WIDE - 1) // WIDE * (WIDE // 8)


def flattened(layer: Layer) -> tuple[Any, ...]:
    """A layer as the flat arguments of an operator, in the order of its fields."""
    rows, weights, state = layer.rows, layer.weights, layer.state
    return (layer.kind, *rows, *weights, *state, *layer.quantizer)


FLAT_PARTS = (Rows, LayerWeights, LifState, Quantizer)
NUM_FLAT = 1 + sum(len(part._fields) for part in FLAT_PARTS)


def unflattened(flat: Sequence[Any]) -> Layer:
    """The layer of the flat arguments of an operator."""
    kind, *others = flat
    values = iter(others)
    parts = (cast(Any, part)(*(next(values) for _ in part._fields)) for part in FLAT_PARTS)
    return Layer(kind, *parts)
