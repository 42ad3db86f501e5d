"""Weights that the outputs of a pruned network reach, counted one by one.

A neuron's fan-out is then its own: the number of weights in its column that are not zero. Neurons
that fire often tend to keep more of them, so that the mean fan-out would count too little.

Shape legend: T time, B batch, H neurons of a site.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from training.models.counting import NetworkShape


def weights_reached(
    shape: NetworkShape,
    site_outputs: Sequence[Tensor],
    lengths_B: Tensor,
    matrices: Mapping[str, Tensor],
) -> list[tuple[int, ...]]:
    """Of each utterance, the weights other than zero that its outputs reached in every matrix.

    Args:
        site_outputs: as for ``measure_activity``.
        lengths_B: valid frames of each utterance.
        matrices: (outputs, inputs) by term, in the order of the counts.
    """
    counts = []
    for term, weight in matrices.items():
        fan_outs = torch.count_nonzero(weight, dim=0)
        site = site_of(term, shape)
        if site is None or shape.signals[site] == "dense":
            counts.append((int(fan_outs.sum()) * lengths_B).tolist())
            continue
        output_TBH = site_outputs[site]
        # What the last frame sends is never fed back.
        frames_B = (lengths_B - 1).clamp(min=0) if term.startswith("recurrent") else lengths_B
        times_T1 = torch.arange(output_TBH.shape[0], device=output_TBH.device)[:, None]
        sent_BH = torch.count_nonzero(output_TBH * (times_T1 < frames_B)[..., None], dim=0)
        counts.append((sent_BH * fan_outs).sum(1).tolist())
    return list(zip(*counts, strict=True))


def site_of(term: str, shape: NetworkShape) -> int | None:
    """The site whose outputs a matrix multiplies; None for the projection, which reads features."""
    if term == "projection":
        return None
    if term == "output":
        return shape.num_layers
    layer = int(term.rpartition("_")[2])
    return layer if term.startswith("recurrent") else layer - 1
