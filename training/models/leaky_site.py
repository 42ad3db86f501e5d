"""A quantiser site of v3: its range and threshold, learned or followed, and its residue leak.

Learned range and threshold are kept as logarithms, so that a step of the optimiser changes either
by about its learning rate's share and neither reaches 0; the leak as the logit of its share.

All outputs of a site add up to the gradient of its range, so that it would dominate the norm by
which gradients are clipped. It is divided by sqrt(H L) for H neurons and L levels, as LSQ does
(Esser et al. 2020, section 2.2); Adam itself does not see the factor.

Shape legend: H neurons.
"""

import math

import torch
from torch import Tensor, nn

from training.constants import UNQUANTIZED_BITS
from training.lif import FiringRule, RecurrenceOutput
from training.models.model_config import ModelConfig
from training.models.site import QuantizerSite, Recurrence
from training.quantizer import Quantizer


def _scaled_gradient(value: Tensor, share: float) -> Tensor:
    """The value itself, with this share of its gradient."""
    return value.detach() + share * (value - value.detach())


class LeakySite(QuantizerSite):
    """Runs a recurrence of v3 with the site's way of firing.

    Args:
        is_encoder: has a threshold and an initial range of its own.
    """

    log_range: nn.Parameter | None
    log_threshold: nn.Parameter | None
    leak_logit: nn.Parameter | None

    def __init__(self, config: ModelConfig, num_neurons: int, *, is_encoder: bool = False) -> None:
        super().__init__(config, is_encoder=is_encoder)
        options = config.leaky
        self.num_neurons = num_neurons
        self.log_range = self.log_threshold = self.leak_logit = None
        if options.learned_levels and config.num_bits != UNQUANTIZED_BITS:
            initial = options.encoder_initial_range if is_encoder else options.initial_range
            self.log_range = nn.Parameter(torch.tensor(math.log(initial)))
            # On the CPU whatever is the default: a network to be filled is built without memory.
            at_first = (torch.tensor(value, device="cpu") for value in (initial, 1.0))
            first = float(self._levels(*at_first).scale())
            threshold = (self.configured_threshold + 1) / first
            self.log_threshold = nn.Parameter(torch.tensor(math.log(threshold)))
        if options.residue_leak:
            share = options.initial_residue_leak
            self.leak_logit = nn.Parameter(torch.full((1,), math.log(share / (1.0 - share))))

    def _levels(self, range_M: Tensor, threshold_levels: Tensor) -> Quantizer:
        num_bits = self.num_bits if self.is_quantized else UNQUANTIZED_BITS
        return Quantizer(range_M, threshold_levels, num_bits)

    def residue_leak(self) -> Tensor | None:
        """lambda, (H,), the same for every neuron; None for no leak."""
        if self.leak_logit is None:
            return None
        return torch.sigmoid(self.leak_logit).expand(self.num_neurons)

    def quantizer(self) -> Quantizer:
        """The quantiser with the present range and threshold, learned or followed."""
        if self.log_range is None:
            return super().quantizer()
        assert self.log_threshold is not None
        num_levels = 2 ** (self.num_bits - 1) - 1
        share = 1.0 / math.sqrt(self.num_neurons * num_levels)
        range_M = _scaled_gradient(self.log_range, share).exp()
        threshold = _scaled_gradient(self.log_threshold, share).exp()
        # The schedule raises thresholds; below one level every potential that has one fires.
        scheduled = (self.threshold + 1) / (self.configured_threshold + 1)
        levels = self._levels(range_M, torch.ones_like(range_M))
        return levels._replace(
            threshold_levels=(scheduled * threshold * levels.scale()).clamp(min=1.0)
        )

    def firing(self) -> FiringRule:
        """How the site fires at present."""
        return FiringRule(self.quantizer(), self.residue_leak())

    def run(self, recurrence: Recurrence) -> RecurrenceOutput:
        """Run the recurrence; where the range is not learned it follows as in v2."""
        if self.log_range is not None:
            return recurrence(self.firing(), None)
        return super().run(recurrence)


def site_for(config: ModelConfig, num_neurons: int, *, is_encoder: bool = False) -> QuantizerSite:
    """A site of v3, or of one of the paper's models."""
    if config.model == "v3":
        return LeakySite(config, num_neurons, is_encoder=is_encoder)
    return QuantizerSite(config, is_encoder=is_encoder)
