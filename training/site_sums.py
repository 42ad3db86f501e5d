"""Sums of what sites sent on, for penalties on spikes.

Shape legend: T time, B batch, H neurons of a site.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from training.collectives import all_sum


class SiteSums(NamedTuple):
    """Sums over a batch's valid frames and all neurons of each site."""

    magnitudes: Tensor  # sum |y| of this worker, one value a site, with gradient
    squares: Tensor  # sum y^2 of this worker, likewise
    # over all workers, float64 without gradient, (4, sites): magnitudes, squares, non-zero outputs,
    # outputs
    totals: Tensor
    num_frames: float  # valid frames of all workers

    def weighted(self, per_magnitude: Tensor, per_square: Tensor) -> Tensor:
        """``sum (a sum |y| - b sum y^2)`` over sites, for weights a and b of any precision."""
        magnitudes = per_magnitude.to(self.magnitudes) * self.magnitudes
        return (magnitudes - per_square.to(self.squares) * self.squares).sum()


def site_sums(site_outputs: Sequence[Tensor], lengths_B: Tensor) -> SiteSums:
    """Add up what sites sent on.

    Args:
        site_outputs: (T, B, H) each, zero at padding.
        lengths_B: valid frames.
    """
    magnitudes = torch.stack([outputs.abs().sum() for outputs in site_outputs])
    squares = torch.stack([outputs.square().sum() for outputs in site_outputs])
    with torch.no_grad():
        fired = torch.stack([torch.count_nonzero(outputs) for outputs in site_outputs])
        sizes = torch.stack([lengths_B.sum() * outputs.shape[2] for outputs in site_outputs])
        sums = torch.stack([magnitudes, squares, fired.to(squares), sizes.to(squares)]).double()
        totals = all_sum(sums)
        num_frames = float(totals[3, 0]) / site_outputs[0].shape[2]
    return SiteSums(magnitudes, squares, totals, num_frames)
