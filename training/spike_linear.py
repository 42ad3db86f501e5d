"""A linear map of spikes that skips zeros: the feed-forward half of a spiking layer.

Shape legend: N frames, H presynaptic neurons, G outputs.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear

from training.kernels import operators


def spike_linear(spikes_NH: Tensor, weight_GH: Tensor) -> Tensor:
    """``Y W^T`` of spikes, most of which are zero.

    On the CPU the product and the gradient of the weight add up rows for the non-zero spikes
    alone where these are few (measured on a sample of the rows), and are dense otherwise. Without
    gradients they are always added up so, one after the other: a frame's result then does not
    depend on the batch around it, and the event-driven recogniser reproduces it bit by bit. On
    other devices this is ``torch.nn.functional.linear``.

    Args:
        spikes_NH: float; result of a recurrence, any number of zeros.
        weight_GH: weight of a linear map without bias.

    Returns:
        (N, G); float32 on the CPU, also under autocast.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    if spikes_NH.dim() != 2 or weight_GH.dim() != 2 or spikes_NH.shape[1] != weight_GH.shape[1]:
        raise ValueError(
            f"spikes {tuple(spikes_NH.shape)} and weight {tuple(weight_GH.shape)} must be (N, H) "
            "and (G, H)"
        )
    if spikes_NH.device.type != "cpu":
        return linear(spikes_NH, weight_GH)
    in_order = not torch.is_grad_enabled()
    product: Tensor = operators.spike_linear(spikes_NH.float(), weight_GH.float(), in_order)
    return product
