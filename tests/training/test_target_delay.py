"""Targets that are named some frames later."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from featurize.schema import FeaturizeManifest
from featurize.stage import PipelineError, read_manifest
from training.batching import delayed
from training.data import TrainingData
from training.losses import IGNORED_TARGET
from training.train_config import CurriculumStage, TrainConfig


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(0, 40))
def test_a_target_stands_so_many_frames_later(targets, delay):
    alignment = np.array(targets, np.int64)
    shifted = delayed(alignment, delay)
    assert shifted.shape == alignment.shape
    assert list(shifted[:delay]) == [IGNORED_TARGET] * min(delay, len(targets))
    assert list(shifted[delay:]) == targets[: max(0, len(targets) - delay)]


def targets_of(features, **settings):
    config = TrainConfig(objective="frame", batch_size=10, **settings)
    data = TrainingData(features, read_manifest(features, FeaturizeManifest), config)
    return list(data.train_steps(0)), list(data.dev_steps())


def test_training_and_dev_count_the_targets_that_are_named(planted_features):
    plain, plain_dev = targets_of(planted_features)
    late, late_dev = targets_of(planted_features, target_delay=2)
    for steps, later in ((plain, late), (plain_dev, late_dev)):
        assert len(steps) == len(later) > 0
        for step, moved in zip(steps, later, strict=True):
            named = (moved.batch.alignment_TB >= 0).sum()
            assert moved.num_targets == int(named) < step.num_targets
            # Every network hears the same frames, and each frame's target is that of two before.
            assert (moved.batch.x_TBF == step.batch.x_TBF).all()
            assert (moved.batch.alignment_TB[2:][moved.batch.alignment_TB[2:] >= 0]).equal(
                step.batch.alignment_TB[:-2][moved.batch.alignment_TB[2:] >= 0]
            )


def test_a_split_whose_utterances_are_all_too_short_for_the_delay_is_refused(planted_features):
    with pytest.raises(PipelineError, match="no more frames than target_delay"):
        targets_of(
            planted_features,
            target_delay=400,
            curriculum=(CurriculumStage(num_epochs=1, chunk_frames=500),),
        )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"objective": "ctc"}, "CTC finds its own delay"),
        ({"curriculum": ({"num_epochs": 1, "chunk_frames": 3},)}, "no target in chunks of 3"),
    ],
)
def test_a_delay_that_cannot_be_is_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        TrainConfig(**({"objective": "frame", "target_delay": 3} | settings))


def test_no_delay_leaves_results_their_names():
    assert "target_delay" not in TrainConfig(objective="frame").determining()
    assert TrainConfig(objective="frame", target_delay=2).determining()["target_delay"] == 2
