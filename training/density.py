"""A penalty on the number of spikes, which a network can be trained against.

The number of non-zero outputs has no useful gradient. What stands in for it at one site is
Hoyer's square measure over all valid frames and neurons, per output::

    S = (sum |y|)^2 / (N sum y^2)          1 / N <= S <= density

By Cauchy and Schwarz ``S`` is at most the share of non-zero outputs, and equal to it where all of
them are of one size. It does not change when all outputs are scaled, and must not: the quantiser's
range follows the outputs, so that smaller ones would be no fewer. Its gradient::

    dS/dy = 2 (sum |y|) / (N sum y^2) * (sign y - y (sum |y|) / (sum y^2))

makes outputs below ``sum y^2 / sum |y|`` smaller until they are zero, those above it larger, and
does not change those that are zero (Yang, Wen & Li 2020, arXiv 1908.09979, use it on weights).

Shape legend: T time, B batch, H neurons of a site.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.site_sums import site_sums
from training.train_config import DensityConfig


def density_penalty(
    site_outputs: Sequence[Tensor],
    lengths_B: Tensor,
    config: DensityConfig,
    *,
    are_ones: bool = False,
) -> Tensor:
    """The weighted sum of S over the layers that fire more than their target.

    Of spikes that are 0 or 1, S is their share ``sum y / N``; written as above its gradient is
    zero, so there it is that of the share, which reaches the silent ones near their threshold too.

    The sums run over all workers; what a worker returns is its share of the gradient, and the
    shares add up to the penalty.

    Args:
        site_outputs: what each site sends on, (T, B, H), zero at padding: the input encoder
            first, which is not counted because no weight comes before it.
        lengths_B: valid frames.
        are_ones: whether every output is 0 or 1.
    """
    layers = site_outputs[1:]
    sums = site_sums(layers, lengths_B)
    magnitude, square, num_fired, size = sums.totals
    target = torch.tensor(config.layer_targets(len(layers)), dtype=size.dtype).to(size)
    acts = (num_fired > target * size) & (square > 0)
    if are_ones:
        shares = torch.where(acts, 1.0 / size, 0.0).to(sums.magnitudes)
        return config.weight * (shares * torch.stack([y.sum() for y in layers])).sum()
    per_magnitude = torch.where(acts, 2 * magnitude / (size * square), 0.0)
    per_square = torch.where(acts, magnitude.square() / (size * square.square()), 0.0)
    return config.weight * sums.weighted(per_magnitude, per_square)
