"""A layer as the Triton kernels see it: named tuples of tensors, which its launcher takes.

Tensors are contiguous: (T, B, H), drives of the gated layers and their gradients (T, B, 2H).
State and its gradients are (B, H) float32.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.constants import SATURATION, UNQUANTIZED_BITS
from training.quantizer import LevelQuantizer, Quantizer, as_levels


class Membrane(NamedTuple):
    """State, read and written.

    Attributes:
        current: I.
        residue: R.
        low: smallest V so far, per utterance and neuron.
        high: largest V so far.
    """

    current: Tensor
    residue: Tensor
    low: Tensor
    high: Tensor


class Kept(NamedTuple):
    """What the forward pass writes for the backward pass.

    Attributes:
        gates: F, gated layers.
        currents: I.
        bits: a byte of ``|V| <= M`` (1) and C > 0 (2).
    """

    gates: Tensor
    currents: Tensor
    bits: Tensor


class Firing(NamedTuple):
    """The quantiser; see ``training.kernels.cpu_layer.Firing``.

    Attributes:
        range_M: scalar tensor, the largest magnitude inside the clip.
        scale: scalar tensor, levels per unit.
        threshold: levels of magnitude up to this stay silent.
        saturation: the largest magnitude of a current or a potential.
    """

    range_M: Tensor
    scale: Tensor
    threshold: float
    saturation: float


class MembraneGradients(NamedTuple):
    """Gradients of the state: of the final state in, of the initial state out.

    Attributes:
        last_spikes: of the final Y, read only.
        current: of I.
        residue: of R.
    """

    last_spikes: Tensor
    current: Tensor
    residue: Tensor


def copied(tensor: Tensor) -> Tensor:
    """A contiguous copy."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def new_membrane(current_BH: Tensor, residue_BH: Tensor) -> Membrane:
    """A state to be advanced, that has seen no potential."""
    low = torch.full_like(residue_BH, torch.inf, memory_format=torch.contiguous_format)
    return Membrane(copied(current_BH), copied(residue_BH), low, -low)


def firing_of(quantizer: LevelQuantizer | Quantizer) -> Firing:
    """The quantiser on its device."""
    levels = as_levels(quantizer)
    scale = levels.scale() if is_quantized(levels) else torch.ones_like(levels.range_M)
    return Firing(levels.range_M, scale, float(levels.threshold_levels) - 1.0, SATURATION)


def is_quantized(quantizer: LevelQuantizer | Quantizer) -> bool:
    """Whether spikes are levels."""
    return quantizer.num_bits != UNQUANTIZED_BITS


def fill(buffers: Any, values: Any) -> None:
    """Copy the tensors or numbers of one named tuple into the tensors of another."""
    for buffer, value in zip(buffers, values, strict=True):
        if not isinstance(buffer, Tensor):
            continue
        if isinstance(value, Tensor):
            buffer.copy_(value)
        else:
            buffer.fill_(value)
