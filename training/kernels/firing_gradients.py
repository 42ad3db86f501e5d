"""From sums over frames to the gradients of how a site fires: leak, range and threshold.

Shape legend: H neurons.
"""

from typing import NamedTuple

from torch import Tensor

from training.kernels.layer import Layer
from training.quantizer import THRESHOLD_WINDOW


class FiringSums(NamedTuple):
    """Sums over frames and utterances, one of each for a neuron.

    With y what arrives at Y in all (``training.lif``) and r the gradient of R.
    """

    leak: Tensor  # r (V - Y), the gradient of lambda
    inside_range: Tensor  # y (Y - V) inside the clip and y Y outside: M times the gradient of M
    threshold: Tensor  # y, with the sign of V, where V is about the threshold


def firing_gradients(
    layer: Layer, sums: FiringSums | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of leak (H,), range and threshold (scalars); None where there are none.

    Args:
        sums: (H,) each; None where potentials were not kept.
    """
    leak = layer.weights.residue_leak_H
    if sums is None:
        return None if leak is None else leak.new_zeros(leak.shape), None, None
    quantizer = layer.quantizer
    range_M, threshold = quantizer.range_M.detach(), quantizer.threshold_levels.detach()
    scale = quantizer._replace(range_M=range_M).scale()
    of_range = sums.inside_range.sum() / range_M
    of_threshold = -sums.threshold.sum() * threshold / (scale * THRESHOLD_WINDOW)
    return None if leak is None else sums.leak.clone(), of_range, of_threshold
