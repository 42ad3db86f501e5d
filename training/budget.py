"""Training towards a budget: a price on the logarithm of all multiplications.

The problem is to minimise the objective subject to C <= B, with C the audited multiplications of a
second of speech (encoder, layers and output by their fan-outs, projection) and B the budget. Its
Lagrangian, with the constraint written in logarithms so that the price does not depend on the
budget's size, is::

    L = objective + mu log(C / B)        mu >= 0, in nats per target for each factor e of cost

C = fixed + sum_i p_i n_i over the sites has no useful gradient in the number n_i of spikes. In its
place stands that of Hoyer's square measure S_i (``training.density``), of which n_i is taken to be
proportional::

    d log C = sum_i (p_i n_i / C) d log S_i,   log S_i = 2 log sum |y| - log sum y^2 + const

The price follows the constraint by dual ascent, step by step, with a proportional part that damps
it (a PI controller; Platt & Barr 1987 call the same damping a modified differential multiplier)::

    e = log(C / aim),   integral <- max(0, integral + k_i e),   mu = max(0, integral + k_p e)

The aim falls geometrically from what the network costs when the penalty begins to the budget, over
``approach_epochs``: so the network loses its least useful spikes first, and not all at once.
Begun with the first step there is no such cost, and the aim is the budget at once.

The budget is what speech costs when it is recognised. A training step costs something else: it
has dropout, hears chunks, and with weight averaging it is another network. So the aim is divided by
what the last epoch cost on dev over what its last steps cost.

The state of the controller is the integral and this excess; they are kept with the metrics of each
epoch, so that a resumed run equals an uninterrupted one.

Shape legend: T time, B batch, H neurons of a site.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.manifest import EpochMetrics
from training.models.counting import NetworkShape, closed_form, products_per_output
from training.site_sums import site_sums
from training.train_config import BudgetConfig

_RECENT_STEPS = 50
"""Over about so many steps the cost of training is averaged."""
_MOST_EXCESS = 1.5
"""Bound of the excess and of its inverse: an epoch in which cost falls says little of the next."""


@dataclass
class BudgetController:
    """The price of multiplications during one training."""

    config: BudgetConfig  # budget and gains
    shape: NetworkShape  # the network, which says what an output of each site costs
    frames_per_s: float  # frames of a second of speech
    integral: float = 0.0  # the controller's state
    # multiplications per second when the penalty began; None before
    starting_cost: float | None = None
    excess: float = 1.0  # cost on dev over that of training
    # mean logarithm of the cost of recent steps; None before the first
    recent_log_cost: float | None = None

    def resume(self, epochs: Sequence[EpochMetrics]) -> None:
        """Take up the state after these epochs."""
        first = self.config.first_epoch
        self.recent_log_cost = None
        if epochs:
            self.integral = epochs[-1].price_integral
            self.excess = epochs[-1].budget_excess
        if 0 < first <= len(epochs):
            # By its outputs: weights that are pruned later are not counted, as in all that follows.
            before = zip(epochs[first - 1].spike_density, self.shape.site_sizes, strict=True)
            self.starting_cost = self.cost_per_s([share * size for share, size in before])

    def cost_per_s(self, spikes_per_frame: Sequence[float]) -> float:
        """Audited multiplications of a second of speech."""
        return self.frames_per_s * closed_form(self.shape, spikes_per_frame)

    def is_affordable(self, cost_per_s: float) -> bool:
        """Whether an epoch of this cost may be the best."""
        return cost_per_s <= self.config.multiplications_per_s * (1.0 + self.config.tolerance)

    def measured_excess(self, dev_cost_per_s: float) -> float:
        """What dev costs over what the last steps of training did, within bounds."""
        if self.recent_log_cost is None:
            return self.excess
        ratio = max(1.0, dev_cost_per_s) / math.exp(self.recent_log_cost)
        return min(max(ratio, 1.0 / _MOST_EXCESS), _MOST_EXCESS)

    def aim(self, epochs_done: float) -> float:
        """Where the cost of training shall be at this time, multiplications per second."""
        budget = self.config.multiplications_per_s / self.excess
        if self.starting_cost is None:
            return budget
        since = epochs_done - self.config.first_epoch
        left = max(0.0, 1.0 - since / self.config.approach_epochs)
        return budget * math.pow(max(1.0, self.starting_cost / budget), left)

    def penalty(
        self,
        site_outputs: Sequence[Tensor],
        lengths_B: Tensor,
        epochs_done: float,
        share: float = 1.0,
    ) -> Tensor:
        """The priced part of the objective, and one step of the controller.

        Its value means nothing; its gradient is mu d log C. What a worker returns is its share,
        and the shares add up.

        Args:
            site_outputs: what each site sends on, (T, B, H), zero at padding, encoder first.
            lengths_B: valid frames.
            epochs_done: epochs with the fraction of the running one.
            share: of the step's frames that these are.
        """
        if epochs_done < self.config.first_epoch:
            return site_outputs[0].new_zeros(())
        sums = site_sums(site_outputs, lengths_B)
        magnitude, square, fired, _ = sums.totals
        num_frames = max(1.0, sums.num_frames)
        of_output = products_per_output(self.shape)
        of_site = fired * fired.new_tensor(of_output) * self.shape.weight_density
        cost = max(1.0, closed_form(self.shape, (fired / num_frames).tolist()))
        log_cost = math.log(cost * self.frames_per_s)
        recent = log_cost if self.recent_log_cost is None else self.recent_log_cost
        self.recent_log_cost = recent + share * (log_cost - recent) / _RECENT_STEPS
        error = log_cost - math.log(self.aim(epochs_done))
        self.integral = max(0.0, self.integral + share * self.config.integral_gain * error)
        price = max(0.0, self.integral + self.config.proportional_gain * error)
        weight = price * of_site / (cost * num_frames)
        fires = square > 0
        per_magnitude = torch.where(fires, 2.0 * weight / magnitude, 0.0)
        per_square = torch.where(fires, weight / square, 0.0)
        return share * sums.weighted(per_magnitude, per_square)
