"""A quantiser site: the range of one population of spiking neurons, and how it moves."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from training.collectives import all_max
from training.constants import UNQUANTIZED_BITS
from training.lif import FiringRule, RecurrenceOutput
from training.models.model_config import ModelConfig
from training.quantizer import Quantizer, RangeTracker, paper_quantizer
from training.train_config import QuantizationScheduleConfig

Recurrence = Callable[[FiringRule, RangeTracker | None], RecurrenceOutput]


class QuantizerSite(nn.Module):
    """Runs a recurrence with the site's quantiser and keeps its range.

    The range is constant within a step; the extremes of its training passes wait in
    ``pending`` until the loop, after the optimiser's step, reduces them over workers and moves
    the range. Before the first step there is no range: the first training pass runs once
    unquantised to see one.

    Args:
        config: bits, threshold and the rule of the range.
        is_encoder: has a threshold of its own, and needs no bound of its range: it follows the
            input alone.
    """

    def __init__(self, config: ModelConfig, *, is_encoder: bool = False) -> None:
        super().__init__()
        threshold = config.encoder_threshold if is_encoder else None
        self.num_bits = config.num_bits
        self.configured_threshold = config.threshold if threshold is None else threshold
        self.threshold = self.configured_threshold
        self.is_quantized = True
        self.num_range_updates: int | None = None
        self.per_step = config.range_update == "timestep"
        self.tracker = RangeTracker(config.encoder_max_range if is_encoder else config.max_range)
        self.pending: Tensor | None = None

    def begin_epoch(self, schedule: QuantizationScheduleConfig, epoch: int) -> None:
        """Spike as the schedule wants it in an epoch, counted from 0."""
        self.is_quantized = epoch >= schedule.unquantized_epochs
        self.threshold = round(schedule.threshold_share(epoch) * self.configured_threshold)
        self.num_range_updates = schedule.num_range_updates

    def range_moves(self) -> bool:
        """Whether the range still follows the potentials."""
        limit = self.num_range_updates
        return limit is None or int(self.tracker.num_updates) < limit

    def quantizer(self) -> Quantizer:
        """The quantiser with the present range."""
        num_bits = self.num_bits if self.is_quantized else UNQUANTIZED_BITS
        return paper_quantizer(self.tracker.range_M(), num_bits, self.threshold)

    def firing(self) -> FiringRule:
        """How the site fires at present."""
        return FiringRule(self.quantizer())

    def run(self, recurrence: Recurrence) -> RecurrenceOutput:
        """Run the recurrence, and in training remember its extremes."""
        if not self.training or self.num_bits == UNQUANTIZED_BITS:
            return recurrence(self.firing(), None)
        if self.per_step:
            return recurrence(self.firing(), self.tracker if self.range_moves() else None)
        if int(self.tracker.num_updates) == 0:
            with torch.no_grad():
                firing = self.firing()
                unquantized = firing.quantizer._replace(num_bits=UNQUANTIZED_BITS)
                self._observe(recurrence(firing._replace(quantizer=unquantized), None))
                self.apply_pending()
        output = recurrence(self.firing(), None)
        self._observe(output)
        return output

    def _observe(self, output: RecurrenceOutput) -> None:
        seen = torch.stack([-output.minimum.detach(), output.maximum.detach()])
        self.pending = seen if self.pending is None else torch.maximum(self.pending, seen)

    def apply_pending(self) -> None:
        """Move the range by the last training pass's extremes, reduced over workers."""
        if self.pending is None or not self.range_moves():
            return
        negated_minimum, maximum = all_max(self.pending)
        self.pending = None
        if bool(torch.isfinite(maximum)):
            self.tracker.update(-negated_minimum, maximum)
