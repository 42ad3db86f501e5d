"""Multi-bit spikes: the quantiser of a site and its running range.

A membrane potential is clipped to the range M, scaled to an integer level, and silenced
where it does not reach the threshold (Ponghiran & Roy 2022, section "Multi-bit
outputs"). Levels are small integers, so a spike costs as many multiplications as it has
fan-out and nothing where it is zero.

``paper_quantizer`` is that of the paper's models, whose integer threshold theta is tau = theta + 1.
In v3 range and threshold may be learned, so they have gradients.
With s levels per unit of potential, x = s clip(V, -M, M) and a threshold of tau levels::

    Y = trunc(x) / s   where |x| >= tau,   else 0

Its gradients, with the straight-through estimate of the paper for the potential:

- potential: dY/dV = 1 inside the clip, silent or not, and 0 outside.
- range: at a fixed tau, Y is M times a function of V / M. With that function's slope taken as 1
  inside the clip, as above, dY/dM = (Y - V) / M inside and Y / M outside: the gradient of a learned
  step (Esser et al. 2020, LSQ, arXiv 1902.08153, equation 3), the step being proportional to M.
- threshold: where x passes tau, Y falls from about tau / s to 0. Its derivative there is a Dirac
  pulse, estimated by a rectangle of ``THRESHOLD_WINDOW`` levels around tau (as Rajamanoharan et al.
  2024, arXiv 2407.14435, for JumpReLU): dY/dtau = -(tau / s) / w where |x - tau| < w / 2, else 0,
  with the sign of V.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from training.constants import UNQUANTIZED_BITS

RANGE_MOMENTUM = 0.1
THRESHOLD_WINDOW = 2.0
"""Width in levels of the rectangle that stands for the threshold's derivative."""


class Quantizer(NamedTuple):
    """The parameters of one quantiser site."""

    # scalar float32 tensor above 0, the largest potential represented; with a gradient where it is
    # learned
    range_M: Tensor
    # tau, scalar float32 tensor, at least 1: what reaches it fires; with a gradient where it is
    # learned
    threshold_levels: Tensor
    num_bits: int  # b, 1 to 8: levels -(2^(b-1) - 1) to 2^(b-1) - 1; or 32 for no quantisation

    @property
    def is_quantized(self) -> bool:
        """Whether spikes are levels; else each keeps the value of its potential."""
        return self.num_bits != UNQUANTIZED_BITS

    def scale(self) -> Tensor:
        """Levels per unit of potential, ``2^(b-1) (1 - 1e-4) / M``.

        The slack keeps the top level at ``2^(b-1) - 1``. With one bit that would leave no level at
        all (as in the authors' code, where a binary spike never fires), so there the slack is
        added instead: a potential at the edge of the range fires level one.
        """
        slack = 1e-4 if self.num_bits == 1 else -1e-4
        return 2.0 ** (self.num_bits - 1) * (1.0 + slack) / self.range_M


def paper_quantizer(range_M: Tensor, num_bits: int, threshold: int) -> Quantizer:
    """The quantiser of the paper's models.

    Args:
        range_M: scalar float32 tensor, constant (no gradient).
        threshold: theta; levels of magnitude up to this stay silent.
    """
    return Quantizer(range_M, torch.full_like(range_M, threshold + 1.0), num_bits)


def quantize(potential: Tensor, quantizer: Quantizer) -> Tensor:
    """Quantise a membrane potential without a gradient.

    Args:
        potential: any shape, float.

    Returns:
        The spike values, same shape: ``k / s`` for the integer level ``k``, 0 where silent.

    Example:
        Three bits give levels up to 3; level 1 is silent at this threshold.

        >>> quantizer = paper_quantizer(torch.tensor(4.0), num_bits=3, threshold=1)
        >>> quantize(torch.tensor([0.5, 1.9, 2.5, 3.9, 9.0]), quantizer).round(decimals=2)
        tensor([0., 0., 2., 3., 3.])
    """
    if not quantizer.is_quantized:
        return potential
    scale = quantizer.scale()
    scaled = torch.clamp(potential, -quantizer.range_M, quantizer.range_M) * scale
    fires = scaled.abs() >= quantizer.threshold_levels
    return torch.where(fires, torch.trunc(scaled), torch.zeros_like(scaled)) / scale


class _Fire(torch.autograd.Function):
    """``quantize`` with the gradients of the module's docstring."""

    @staticmethod
    def forward(ctx, potential, range_M, threshold_levels, num_bits):  # type: ignore[no-untyped-def]
        spikes = quantize(potential, Quantizer(range_M, threshold_levels, num_bits))
        ctx.save_for_backward(potential, range_M, threshold_levels, spikes)
        ctx.num_bits = num_bits
        return spikes

    @staticmethod
    def backward(ctx, grad_spikes):  # type: ignore[no-untyped-def]
        potential, range_M, tau, spikes = ctx.saved_tensors
        quantizer = Quantizer(range_M, tau, ctx.num_bits)
        if not quantizer.is_quantized:
            return grad_spikes, None, None, None
        inside = potential.abs() <= range_M
        of_range = of_threshold = None
        if any(ctx.needs_input_grad[1:3]):
            scale = quantizer.scale()
            per_range = (spikes - torch.where(inside, potential, 0.0)) / range_M
            scaled = torch.clamp(potential, -range_M, range_M) * scale
            near = (scaled.abs() - tau).abs() < THRESHOLD_WINDOW / 2
            per_threshold = -near.to(scaled) * scaled.sign() * tau / (scale * THRESHOLD_WINDOW)
            of_range = (grad_spikes * per_range).sum()
            of_threshold = (grad_spikes * per_threshold).sum()
        return grad_spikes * inside, of_range, of_threshold, None


def fire(potential: Tensor, quantizer: Quantizer) -> Tensor:
    """Quantise with the surrogate gradients for potential, range and threshold."""
    return _Fire.apply(potential, *quantizer)  # type: ignore[no-any-return,no-untyped-call,unused-ignore]


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
