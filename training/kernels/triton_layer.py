"""A layer as the Triton kernels see it: named tuples of tensors, which its launcher takes.

Tensors are contiguous: (T, B, H), drives of the gated layers and their gradients (T, B, 2H).
State and its gradients are (B, H) float32.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.constants import SATURATION
from training.kernels.layer import Layer


class Membrane(NamedTuple):
    """State, read and written."""

    current: Tensor  # I
    residue: Tensor  # R
    low: Tensor  # smallest V so far, per utterance and neuron
    high: Tensor  # largest V so far


class Kept(NamedTuple):
    """What the forward pass writes for the backward pass."""

    gates: Tensor  # F, gated layers
    currents: Tensor  # I
    potentials: Tensor  # V, where leak, range or threshold are learned
    bits: Tensor  # a byte of V in the clip (1) and a cell above 0 (2)


class Firing(NamedTuple):
    """How a site fires; see ``training.kernels.cpu_layer.Firing``. Scalars but for the leak."""

    range_M: Tensor  # the largest magnitude of a potential inside the clip
    scale: Tensor  # levels per unit
    threshold: Tensor  # levels of magnitude below this stay silent
    leak: Tensor  # lambda, (H,); any tensor where residues do not leak
    saturation: float  # the largest magnitude of a current or a potential


class Options(NamedTuple):
    """What the kernels are compiled for, beside the kind of layer."""

    is_quantized: bool
    has_leak: bool
    has_potentials: bool

    def constants(self) -> dict[str, bool]:
        """As arguments of a launch."""
        return {
            "IS_QUANTIZED": self.is_quantized,
            "HAS_LEAK": self.has_leak,
            "HAS_POTENTIALS": self.has_potentials,
        }


class MembraneGradients(NamedTuple):
    """Gradients of the state: of the final state in, of the initial state out."""

    last_spikes: Tensor  # of the final Y, read only
    current: Tensor  # of I
    residue: Tensor  # of R


def copied(tensor: Tensor) -> Tensor:
    """A contiguous copy."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def new_membrane(current_BH: Tensor, residue_BH: Tensor) -> Membrane:
    """A state to be advanced, that has seen no potential."""
    low = torch.full_like(residue_BH, torch.inf, memory_format=torch.contiguous_format)
    return Membrane(copied(current_BH), copied(residue_BH), low, -low)


def firing_of(layer: Layer) -> Firing:
    """How the layer fires, on its device."""
    range_M, leak = layer.quantizer.range_M.detach(), layer.weights.residue_leak_H
    levels = layer.quantizer._replace(range_M=range_M)
    return Firing(
        range_M=range_M,
        scale=levels.scale() if levels.is_quantized else torch.ones_like(range_M),
        threshold=levels.threshold_levels.detach(),
        leak=range_M if leak is None else leak.detach().contiguous(),
        saturation=SATURATION,
    )


def options_of(layer: Layer, has_potentials: bool) -> Options:
    """What the layer's kernels are compiled for."""
    return Options(
        layer.quantizer.is_quantized,
        layer.weights.residue_leak_H is not None,
        has_potentials,
    )


def fill(buffers: Any, values: Any) -> None:
    """Copy the tensors or numbers of one named tuple into the tensors of another."""
    for buffer, value in zip(buffers, values, strict=True):
        if not isinstance(buffer, Tensor):
            continue
        if isinstance(value, Tensor):
            buffer.copy_(value)
        else:
            buffer.fill_(value)
