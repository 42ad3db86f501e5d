"""What a spike of each site costs in multiplications, for training towards a budget.

The audited count of DESIGN section 4 as a sum over sites: a non-zero output costs its fan-out, the
rows of the layer above and of its own recurrence, or the outputs. ``evaluation.multiplications``
counts finished recognisers with itemised terms; a test holds the two equal.

Shape legend: T time, B batch, H neurons of a site.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from training.collectives import all_sum
from training.models.model_config import ModelConfig

_ROWS = {"conventional": 1, "v1": 2, "v2": 2, "v3": 2}
_FED_BACK = ("v2", "v3")


class SpikePrices(NamedTuple):
    """Multiplications of a spiking network, per frame.

    Attributes:
        fixed: of every frame, whatever fires: the projection.
        per_spike: of each non-zero output of a site, encoder first.
    """

    fixed: float
    per_spike: tuple[float, ...]

    @classmethod
    def of(cls, config: ModelConfig, num_features: int, num_outputs: int) -> "SpikePrices":
        """Prices of a spiking network.

        Args:
            config: the network.
            num_features: F.
            num_outputs: O.
        """
        rows = _ROWS[config.model] * config.hidden_size
        recurrent = rows if config.model in _FED_BACK else 0
        below = [float(rows)] + [float(rows + recurrent)] * (config.num_layers - 1)
        fixed = float((config.projection_size or 0) * num_features)
        return cls(fixed, (*below, float(recurrent + num_outputs)))

    def per_frame(self, spikes_per_frame: Sequence[float]) -> float:
        """Multiplications of a frame from the mean spikes of each site."""
        pairs = zip(self.per_spike, spikes_per_frame, strict=True)
        return self.fixed + sum(price * spikes for price, spikes in pairs)


class SiteSums(NamedTuple):
    """Sums over a batch's valid frames and all neurons of each site.

    Attributes:
        magnitudes: sum |y| of this worker, one value a site, with gradient.
        squares: sum y^2 of this worker, likewise.
        totals: over all workers, float64 without gradient, (4, sites): magnitudes, squares,
            non-zero outputs, outputs.
        num_frames: valid frames of all workers.
    """

    magnitudes: Tensor
    squares: Tensor
    totals: Tensor
    num_frames: float


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
