"""Multi-bit spikes: the quantiser Q of DESIGN section 3 and its running range.

A membrane potential is clipped to the range M, scaled to an integer level, and silenced
where the level does not exceed the threshold (Ponghiran & Roy 2022, section "Multi-bit
outputs"). Levels are small integers, so a spike costs as many multiplications as it has
fan-out and nothing where it is zero.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from training.choices import UNQUANTIZED_BITS as UNQUANTIZED_BITS

RANGE_MOMENTUM = 0.1


class Quantizer(NamedTuple):
    """The parameters of one quantiser site.

    Attributes:
        range_M: scalar float32 tensor, the largest magnitude represented; constant (no gradient).
        num_bits: 1 to 8, or 32 for no quantisation.
        threshold: levels of magnitude up to this stay silent.
    """

    range_M: Tensor
    num_bits: int
    threshold: int


def level_scale(range_M: Tensor, num_bits: int) -> Tensor:
    """Levels per unit of membrane potential, ``2^(b-1) (1 - 1e-4) / M``.

    The slack keeps the top level at ``2^(b-1) - 1``. With one bit that would leave no level at
    all (as in the authors' code, where a binary spike never fires), so there the slack is
    added instead: a potential at the edge of the range fires level one.
    """
    slack = 1e-4 if num_bits == 1 else -1e-4
    return 2.0 ** (num_bits - 1) * (1.0 + slack) / range_M


def quantize(potential: Tensor, quantizer: Quantizer) -> Tensor:
    """Quantise a membrane potential without a gradient.

    Args:
        potential: any shape, float.
        quantizer: the site's parameters.

    Returns:
        The spike values, same shape: ``k / s`` for the integer level ``k``, 0 where silent.
    """
    if quantizer.num_bits == UNQUANTIZED_BITS:
        return potential
    range_M = quantizer.range_M
    scale = level_scale(range_M, quantizer.num_bits)
    clipped = torch.clamp(potential, -range_M, range_M)
    level = torch.trunc(clipped * scale)
    level = torch.where(level.abs() > quantizer.threshold, level, torch.zeros_like(level))
    return level / scale


class _StraightThrough(torch.autograd.Function):
    """Q with the identity as its gradient inside the clip and zero outside."""

    @staticmethod
    def forward(ctx, potential, range_M, num_bits, threshold):  # type: ignore[no-untyped-def]
        if num_bits != UNQUANTIZED_BITS:
            ctx.save_for_backward(potential.abs() <= range_M)
        return quantize(potential, Quantizer(range_M, num_bits, threshold))

    @staticmethod
    def backward(ctx, grad_spikes):  # type: ignore[no-untyped-def]
        if not ctx.saved_tensors:
            return grad_spikes, None, None, None
        (inside,) = ctx.saved_tensors
        return grad_spikes * inside, None, None, None


def fire(potential: Tensor, quantizer: Quantizer) -> Tensor:
    """Quantise with the straight-through surrogate gradient."""
    return _StraightThrough.apply(potential, *quantizer)  # type: ignore[no-any-return,no-untyped-call]


class RangeTracker(torch.nn.Module):
    """Exponential moving average of the smallest and largest membrane potential of one site.

    Momentum 0.1 with bias correction ``1 / (1 - 0.9^k)``; frozen outside training. The range
    is constant within a forward pass and moves once per training step (``update``); the
    authors move it at every time step.

    Args:
        max_range: bound of the range; None for none.
    """

    minimum: Tensor
    maximum: Tensor
    num_updates: Tensor

    def __init__(self, max_range: float | None = None) -> None:
        super().__init__()
        self.max_range = max_range
        self.register_buffer("minimum", torch.zeros(()))
        self.register_buffer("maximum", torch.zeros(()))
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.long))

    def range_M(self) -> Tensor:
        """The range M as a scalar tensor, at least 1e-6 and at most ``max_range``."""
        correction = 1.0 - (1.0 - RANGE_MOMENTUM) ** self.num_updates.clamp(min=1)
        largest = torch.maximum(self.minimum.abs(), self.maximum.abs()) / correction
        return largest.clamp(min=1e-6, max=self.max_range).to(torch.float32)

    @torch.no_grad()
    def update(self, observed_minimum: Tensor, observed_maximum: Tensor) -> None:
        """Move the average towards one forward pass's extremes (already reduced over workers)."""
        self.minimum.lerp_(observed_minimum.to(self.minimum), RANGE_MOMENTUM)
        self.maximum.lerp_(observed_maximum.to(self.maximum), RANGE_MOMENTUM)
        self.num_updates += 1
