"""A batch computed in parts: the gradients add up to the whole batch's."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from featurize.schema import FeaturizeManifest
from featurize.stage import Location, read_manifest
from training.checkpoint import CheckpointStore
from training.data import TrainingData
from training.loop import TrainingLoop
from training.models.build import build_network
from training.models.model_config import ModelConfig
from training.models.site import QuantizerSite
from training.train_config import CurriculumStage, TrainConfig


def loop_of(features, tmp_path, accumulate, model="gru", objective="ctc"):
    config = TrainConfig(
        model=ModelConfig(model=model, hidden_size=12, dropout=0.3),
        objective=objective,
        curriculum=(CurriculumStage(num_epochs=1),),
        batch_size=10,
        accumulate=accumulate,
    )
    data = TrainingData(features, read_manifest(features, FeaturizeManifest), config)
    torch.manual_seed(0)
    network = build_network(config.model, 8, 6)
    run = CheckpointStore(Location.of(tmp_path))
    return TrainingLoop(network, network, config, data, run)


def gradients_of_a_step(loop, monkeypatch):
    """The gradients of the first step, with nothing that depends on the other sequences."""
    taken = []
    monkeypatch.setattr(
        loop,
        "_apply_gradients",
        lambda *_: taken.append([p.grad for p in loop.network.parameters()]),
    )
    loop.network.eval()  # batch normalisation by its averages
    steps = loop.data.train_steps(0)
    parts = [next(steps)]
    loss = loop.train_part(0, parts[0])
    while not parts[-1].is_last:
        parts.append(next(steps))
        loss += loop.train_part(0, parts[-1])
    steps.close()
    assert len(taken) == 1
    return parts, float(loss), taken[0]


@pytest.mark.parametrize("objective", ["ctc", "frame"])
def test_parts_add_up_to_the_gradient_of_the_batch(
    objective, planted_features, tmp_path, monkeypatch
):
    whole, in_parts = (
        gradients_of_a_step(
            loop_of(planted_features, tmp_path, accumulate, objective=objective), monkeypatch
        )
        for accumulate in (None, 3)
    )
    assert len(whole[0]) == 1
    names = [name for part in in_parts[0] for name in part.batch.utterance_ids]
    assert len(in_parts[0]) == 3
    assert names == list(whole[0][0].batch.utterance_ids)
    assert sum(part.frame_share for part in in_parts[0]) == pytest.approx(1)
    assert in_parts[1] == pytest.approx(whole[1], rel=1e-5)
    for part, expected in zip(in_parts[2], whole[2], strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-3, atol=1e-6)


def test_a_range_moves_once_a_step_by_the_extremes_of_all_parts(planted_features, tmp_path):
    loop = loop_of(planted_features, tmp_path, 2, model="v2")
    loop.network.train()
    steps = loop.data.train_steps(0)
    first, second = next(steps), next(steps)
    loop.train_part(0, first)
    tracker, seen = loop.network.encoder_site.tracker, loop.network.encoder_site.pending.clone()
    assert int(tracker.num_updates) == 1  # what the very first pass needs to have a range at all
    loop.train_part(0, second)
    steps.close()
    assert int(tracker.num_updates) == 2
    assert loop.network.encoder_site.pending is None
    assert (seen > 0).all()


def test_extremes_are_those_of_all_parts():
    site = QuantizerSite(ModelConfig())
    for minimum, maximum in ((-3.0, 1.0), (-1.0, 2.0)):
        site._observe(SimpleNamespace(minimum=torch.tensor(minimum), maximum=torch.tensor(maximum)))
    assert site.pending.tolist() == [3.0, 2.0]


def test_an_epoch_in_parts_counts_every_utterance_once(planted_features, tmp_path):
    whole = loop_of(planted_features, tmp_path, None).run_epoch(0)
    parts = loop_of(planted_features, tmp_path, 4).run_epoch(0)
    assert parts.num_utterances == whole.num_utterances == 42
    assert parts.num_frames == whole.num_frames
    assert parts.train_loss == pytest.approx(whole.train_loss, rel=0.2)


def test_more_parts_than_sequences_are_refused():
    with pytest.raises(ValueError, match="accumulate=9 parts of a batch of 8 sequences"):
        TrainConfig(batch_size=8, accumulate=9)
