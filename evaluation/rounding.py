"""Rounding the weights of a trained network before it recognises."""

import torch

from featurize.stage import PipelineError
from training.models.network import SpeechNetwork


@torch.no_grad()
def round_weights(network: SpeechNetwork, num_bits: int) -> None:
    """Round every matrix to signed levels of so many bits, of one step in each of its rows.

    The largest weight of a row is its top level, 2^(num_bits - 1) - 1 steps; zeros stay zero.

    Args:
        network: changed in place.

    Raises:
        PipelineError: of a model that does not state its matrices.
    """
    if not network.config.spec.states_matrices:
        raise PipelineError(
            f"evaluate.weight_bits={num_bits}: {network.config.model} does not state its matrices; "
            "leave it empty"
        )
    top_level = 2 ** (num_bits - 1) - 1
    for weight in network.matrices().values():
        largest = weight.abs().amax(dim=1, keepdim=True)
        step = torch.where(largest > 0, largest / top_level, torch.ones_like(largest))
        weight.copy_((weight / step).round() * step)
