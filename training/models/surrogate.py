"""Steps whose gradient is replaced by one of finite width, for neurons that fire or do not.

The quantiser of the LIF models has its own (``training.quantizer``).
"""

import torch
from torch import Tensor


class _Boxcar(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        ctx.save_for_backward((x > -0.5) & (x <= 0.5))
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (inside,) = ctx.saved_tensors
        return grad * inside


class _Triangle(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, height):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        ctx.height = height
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        return grad * ctx.height * (1.0 - x.abs()).clamp(min=0.0), None


def boxcar_step(x: Tensor) -> Tensor:
    """1 where x > 0, else 0; gradient 1 in (-0.5, 0.5] (Kaiser, Mostafa & Neftci 2020)."""
    return _Boxcar.apply(x)  # type: ignore[no-any-return,no-untyped-call,unused-ignore]


def triangle_step(x: Tensor, height: float) -> Tensor:
    """1 where x > 0, else 0; gradient ``height * max(0, 1 - |x|)`` (Bellec et al. 2018)."""
    return _Triangle.apply(x, height)  # type: ignore[no-any-return,no-untyped-call,unused-ignore]
