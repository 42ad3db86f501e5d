import math

import pytest

from training.learning_rate import next_learning_rate, step_learning_rate
from training.manifest import EpochMetrics
from training.train_config import CurriculumStage, OptimizerConfig, TrainConfig


def history(*dev_errors):
    return tuple(
        EpochMetrics(
            epoch=epoch,
            train_loss=1.0,
            dev_loss=1.0,
            dev_error=error,
            learning_rate=1.0,
            frames_per_s=1.0,
            num_frames=1,
            num_utterances=1,
            seconds=1.0,
            spike_density=(),
        )
        for epoch, error in enumerate(dev_errors)
    )


@pytest.mark.parametrize(
    ("changes", "errors", "expected"),
    [
        ({}, (0.5,), 1e-3),
        ({}, (0.5, 0.4), 1e-3),
        ({}, (0.5, 0.5), 5e-4),
        ({"halve_below_improvement": 0.1}, (0.5, 0.46), 5e-4),
        ({"min_learning_rate": 8e-4}, (0.5, 0.6), 8e-4),
        ({"constant_epochs": 2}, (0.5, 0.6), 1e-3),
        ({"warmup_epochs": 2}, (0.5, 0.6), 1e-3),
        ({"constant_epochs": 2}, (0.5, 0.6, 0.7), 5e-4),
        ({"rule": "cosine"}, (0.5, 0.6, 0.7), 1e-3),
    ],
)
def test_halved_where_the_dev_error_stops_improving(changes, errors, expected):
    config = OptimizerConfig(**changes)
    assert next_learning_rate(config, 1e-3, history(*errors)) == pytest.approx(expected)


def test_cosine_falls_from_the_base_to_the_floor():
    config = OptimizerConfig(rule="cosine", min_learning_rate=1e-4, warmup_epochs=2)
    rates = [step_learning_rate(config, 1e-3, done, 10) for done in (0, 1, 2, 6, 10)]
    assert rates == pytest.approx([1e-5, 5e-4, 1e-3, 5.5e-4, 1e-4])
    quarter = 1e-4 + 9e-4 * (1 + math.cos(math.pi / 4)) / 2
    assert step_learning_rate(config, 1e-3, 4.0, 10) == pytest.approx(quarter)


def test_without_warmup_the_halving_rule_keeps_the_base_all_epoch():
    assert {step_learning_rate(OptimizerConfig(), 3e-4, t, 5) for t in (0, 0.5, 4.9)} == {3e-4}


def test_a_warmup_longer_than_training_is_refused():
    with pytest.raises(ValueError, match="warmup_epochs=3 of 3 epochs"):
        TrainConfig(
            curriculum=(CurriculumStage(num_epochs=3),), optimizer=OptimizerConfig(warmup_epochs=3)
        )
