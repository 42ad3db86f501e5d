"""Pruning by magnitude while a network trains.

Zhu & Gupta 2017, *To prune, or not to prune* (arXiv 1710.01878): with t the share of the training
that is done, each matrix keeps its largest weights, a share of them that falls from 1 at t0 to the
configured density d at t1::

    density(t) = d + (1 - d) (1 - (t - t0) / (t1 - t0))^3

A weight that was pruned stays zero. All matrices keep the same share, so that what a dense network
costs is known from its size.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from training.constants import PRUNED_BY, PRUNED_FROM
from training.models.counting import kept_weights
from training.models.network import SpeechNetwork

_EVERY_STEPS = 20
"""Steps between two choices of the weights that are kept."""


def density_at(share_done: float, density: float) -> float:
    """Share of the weights that is kept when this share of the training is done."""
    passed = (share_done - PRUNED_FROM) / (PRUNED_BY - PRUNED_FROM)
    return density + (1.0 - density) * (1.0 - min(max(passed, 0.0), 1.0)) ** 3


class WeightPruner:
    """Keeps the largest weights of every matrix of a network, fewer and fewer.

    What is pruned is read from the weights themselves, so that a resumed training goes on with it.

    Args:
        network: a network that states its matrices; a resumed one with its weights in place.
        density: share of each matrix that is kept in the end.
    """

    def __init__(self, network: SpeechNetwork, density: float) -> None:
        self.network = network
        self.density = density
        self.masks = {name: weight != 0 for name, weight in network.matrices().items()}

    @property
    def share_kept(self) -> float:
        """Of all weights, those that are not pruned yet."""
        masks = self.masks.values()
        return sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)

    @torch.no_grad()
    def after_step(self, step: int, share_done: float, copies: Iterable[SpeechNetwork]) -> None:
        """Prune after an optimiser's step.

        Args:
            step: number of the step in its epoch, from 0.
            share_done: share of the training that is done.
            copies: networks of other weights that shall lack the same, such as the average.
        """
        matrices = self.network.matrices()
        for name, weight in matrices.items():
            weight.mul_(self.masks[name])
        if step % _EVERY_STEPS == 0 or share_done >= PRUNED_BY:
            density = density_at(share_done, self.density)
            self.masks = {
                name: _largest(weight, self.masks[name], density)
                for name, weight in matrices.items()
            }
        for network in (self.network, *copies):
            for name, weight in network.matrices().items():
                weight.mul_(self.masks[name])


def _largest(weight: Tensor, mask: Tensor, density: float) -> Tensor:
    """Mask of the largest weights among those that are kept, as many as the density says."""
    count = kept_weights(weight.numel(), density)
    if int(mask.sum()) <= count:
        return mask
    kept = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    kept[weight.abs().flatten().topk(count, sorted=False).indices] = True
    return kept.view_as(weight)
