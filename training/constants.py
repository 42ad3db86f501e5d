"""Names and numbers shared by configuration, models, kernels and the exported engine.

No import here, so that reading a configuration, or running an exported model, needs no torch.
"""

from typing import Literal

Backend = Literal["auto", "reference", "cpu", "triton"]

UNQUANTIZED_BITS = 32
"""Bits that mean a spike keeps its value."""

SATURATION = 1e30
"""Largest magnitude of a current, a cell's drive or a potential: no overflow, hence no NaN."""

PRUNED_FROM = 1 / 6
"""Share of a training that is done when the pruning of its weights begins."""
PRUNED_BY = 2 / 3
"""Share of a training that is done when the weights that are kept are as few as configured."""
