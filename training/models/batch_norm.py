"""Batch normalisation over the valid frames of all workers.

Statistics run over packed frames, so padding never enters them, and are reduced over workers,
so that one and two workers on the same global batch agree. In evaluation the layer is affine
and can be folded into the linear map before it (``scale_and_shift``).

Shape legend: N packed valid frames, H features.
"""

import torch
from torch import Tensor, nn

from training.collectives import all_sum, world_size

MOMENTUM = 0.1
EPSILON = 1e-5


class _SyncedNormalize(torch.autograd.Function):
    """``(x - mean) / std`` with statistics of all workers, and its exact gradient."""

    @staticmethod
    def forward(ctx, x_NH):  # type: ignore[no-untyped-def]
        num_features = x_NH.shape[1]
        count_and_sum = torch.cat([x_NH.new_tensor([float(x_NH.shape[0])]), x_NH.sum(0)])
        all_sum(count_and_sum)
        count = count_and_sum[0].clamp(min=1.0)
        mean = count_and_sum[1:] / count
        centred = x_NH - mean
        variance = all_sum(centred.square().sum(0)) / count
        inverse_std = torch.rsqrt(variance + EPSILON)
        normalized = centred * inverse_std
        ctx.save_for_backward(normalized, inverse_std, count)
        ctx.mark_non_differentiable(mean, variance, count)
        assert mean.shape == (num_features,)
        return normalized, mean, variance, count

    @staticmethod
    def backward(ctx, grad_NH, *_):  # type: ignore[no-untyped-def]
        normalized, inverse_std, count = ctx.saved_tensors
        sums = all_sum(torch.stack([grad_NH.sum(0), (grad_NH * normalized).sum(0)])) / count
        return inverse_std * (grad_NH - sums[0] - normalized * sums[1])


class FrameBatchNorm(nn.Module):
    """Batch norm over packed frames, (N, H) to (N, H); momentum 0.1.

    Args:
        num_features: H.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x_NH: Tensor) -> Tensor:
        """Normalise by the batch in training, by the running statistics in evaluation."""
        if self.training and (world_size() > 1 or x_NH.shape[0] < 2):
            return self._forward_synced(x_NH)
        normalized, _, _ = torch.native_batch_norm(
            x_NH,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            self.training,
            MOMENTUM,
            EPSILON,
        )
        return normalized

    def _forward_synced(self, x_NH: Tensor) -> Tensor:
        normalized, mean, variance, count = _SyncedNormalize.apply(x_NH)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            unbiased = variance * count / (count - 1.0).clamp(min=1.0)
            self.running_mean.lerp_(mean, MOMENTUM)
            self.running_var.lerp_(unbiased, MOMENTUM)
        return torch.addcmul(self.bias, normalized, self.weight)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """The evaluation-time map ``y = scale * x + shift``, each (H,)."""
        scale = self.weight * torch.rsqrt(self.running_var + EPSILON)
        return scale, self.bias - scale * self.running_mean
