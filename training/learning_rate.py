"""The learning-rate rule, a pure function of what has been trained so far."""

import math
from collections.abc import Sequence

from training.manifest import EpochMetrics
from training.train_config import OptimizerConfig


def next_learning_rate(
    config: OptimizerConfig, learning_rate: float, epochs: Sequence[EpochMetrics]
) -> float:
    """The base rate of the next epoch.

    Under ``halve``, half of it where the last epoch's dev error did not improve on the one before,
    down to the floor; under ``cosine`` the base never changes.

    Args:
        learning_rate: base rate of the last epoch.
        epochs: metrics of all epochs so far, at least one.
    """
    last = epochs[-1]
    waits = last.epoch < max(config.constant_epochs, config.warmup_epochs)
    if config.rule == "cosine" or len(epochs) < 2 or waits:
        return learning_rate
    before = epochs[-2].dev_error
    improvement = (before - last.dev_error) / before if before > 0 else 0.0
    if improvement > config.halve_below_improvement:
        return learning_rate
    return max(learning_rate / 2, config.min_learning_rate)


def step_learning_rate(
    config: OptimizerConfig, base: float, epochs_done: float, num_epochs: int
) -> float:
    """The rate of one step.

    With ``w`` epochs of warm-up and ``t`` of ``E`` epochs done: ``base (t / w)`` below ``w`` (but
    never below a hundredth of the base), then ``base`` or, under ``cosine``,
    ``floor + (base - floor) (1 + cos(pi (t - w) / (E - w))) / 2``.

    Args:
        base: the epoch's base rate.
        epochs_done: t, with the fraction of the running epoch.
        num_epochs: E.
    """
    warmup = config.warmup_epochs
    if epochs_done < warmup:
        return base * max(0.01, epochs_done / warmup)
    if config.rule == "halve":
        return base
    share = (epochs_done - warmup) / (num_epochs - warmup)
    floor = config.min_learning_rate
    return floor + (base - floor) * (1.0 + math.cos(math.pi * share)) / 2.0
