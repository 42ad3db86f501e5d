"""Pruning by magnitude: how much, which weights, and what it leaves to count."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evaluation.multiplications import measure_activity
from featurize.schema import FeaturizeManifest
from featurize.shards import iter_rows
from featurize.stage import Location, read_manifest
from training.batching import collate
from training.constants import PRUNED_BY, PRUNED_FROM
from training.models.build import build_network
from training.models.counting import NetworkShape, audited, closed_form, count_terms, kept_weights
from training.models.model_config import ModelConfig
from training.train import train
from training.train_config import (
    BudgetConfig,
    CurriculumStage,
    OptimizerConfig,
    TrainConfig,
    WeightAveragingConfig,
)
from training.trained_model import load_model
from training.weight_pruning import WeightPruner, density_at
from training.worker_config import WorkerConfig

MODELS = ["gru", "lstm", "ligru", "conventional", "v1", "v2", "v3"]


def network_of(model, density=0.3, size=12, **changes):
    torch.manual_seed(5)
    config = ModelConfig(
        model=model, hidden_size=size, weight_density=density, dropout=0, **changes
    )
    return build_network(config, 6, 5)


def pruned(network, density=0.3):
    pruner = WeightPruner(network, density)
    for step in range(4):
        pruner.after_step(step, 0.9, ())
    return network


def test_the_schedule_begins_whole_and_ends_at_its_density():
    assert density_at(0.0, 0.3) == density_at(PRUNED_FROM, 0.3) == 1.0
    assert density_at(PRUNED_BY, 0.3) == density_at(1.0, 0.3) == 0.3
    # half way: d + (1 - d) / 8
    assert density_at((PRUNED_FROM + PRUNED_BY) / 2, 0.2) == pytest.approx(0.2 + 0.8 / 8)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 0.99))
def test_the_schedule_never_rises(early, late, density):
    early, late = sorted((early, late))
    assert density <= density_at(late, density) <= density_at(early, density) <= 1.0


@pytest.mark.parametrize("model", MODELS)
def test_the_largest_weights_of_every_matrix_stay(model):
    network = network_of(model)
    before = {name: weight.detach().clone() for name, weight in network.matrices().items()}
    pruned(network)
    for name, weight in network.matrices().items():
        kept = weight != 0
        assert int(kept.sum()) == kept_weights(weight.numel(), 0.3), name
        assert torch.equal(weight[kept], before[name][kept])
        assert before[name][kept].abs().min() >= before[name][~kept].abs().max()


def test_what_was_pruned_never_returns():
    network = network_of("gru")
    pruner = WeightPruner(network, 0.2)
    gone = {name: torch.zeros_like(w, dtype=torch.bool) for name, w in network.matrices().items()}
    for step in range(60):
        with torch.no_grad():
            for weight in network.matrices().values():
                weight.add_(torch.randn_like(weight))
        pruner.after_step(step, step / 60, ())
        for name, weight in network.matrices().items():
            assert not bool((gone[name] & (weight != 0)).any())
            gone[name] |= weight == 0
    assert all(float(g.float().mean()) == pytest.approx(0.8, abs=0.01) for g in gone.values())


def test_the_average_lacks_the_same_weights_and_a_resumed_pruner_goes_on():
    network, average = network_of("v3"), network_of("v3")
    WeightPruner(network, 0.3).after_step(0, 1.0, (average,))
    for name, weight in network.matrices().items():
        assert torch.equal(weight != 0, average.matrices()[name] != 0)
    resumed = WeightPruner(network, 0.3)
    with torch.no_grad():
        for weight in network.matrices().values():
            weight.add_(1.0)
    kept = {name: mask.clone() for name, mask in resumed.masks.items()}
    resumed.after_step(7, 0.2, ())
    for name, weight in network.matrices().items():
        assert torch.equal(weight != 0, kept[name])


@pytest.mark.parametrize("model", MODELS)
def test_the_count_is_that_of_products_with_weights_that_are_there(model):
    """Counted by the audit, and by hand, product by product."""
    network = pruned(network_of(model))
    x, lengths = 2.5 * torch.randn(20, 3, 6), torch.tensor([20, 11, 1])
    network(x, lengths)
    network.eval()
    with torch.inference_mode():
        output = network(x, lengths)
    shape = NetworkShape(network.config, 6, 5)
    matrices = network.matrices()
    activities = measure_activity(shape, output.site_outputs, lengths, matrices)
    for number, (length, activity) in enumerate(zip(lengths.tolist(), activities, strict=True)):
        sites = [site[:length, number].numpy() for site in output.site_outputs]
        products = 0
        for term, weight in matrices.items():
            layer = int(term[-1]) if term[-1].isdigit() else len(sites)
            sent = sites[layer - 1] if term != "output" else sites[-1]
            if term.startswith("recurrent"):
                sent = sites[layer]
                sent = sent if shape.signals[layer] == "dense" else sent[:-1]
            all_count = shape.signals[1] == "dense"
            counts = np.ones_like(sent) if all_count else (sent != 0)
            products += int((counts[:, None, :] * (weight.detach().numpy() != 0)).sum())
        assert audited(count_terms(shape, activity)) == products
    if not shape.is_event_based:
        frames = sum(lengths.tolist())
        means = [float(size) for size in shape.site_sizes]
        whole = audited(count_terms(shape, sum(activities[1:], activities[0])))
        assert whole / frames == pytest.approx(closed_form(shape, means), rel=0.02)


def test_a_whole_network_counts_as_before():
    network = network_of("v2", density=None)
    x, lengths = 2.5 * torch.randn(9, 2, 6), torch.tensor([9, 4])
    network(x, lengths)
    with torch.inference_mode():
        sites = network.eval()(x, lengths).site_outputs
    shape = NetworkShape(network.config, 6, 5)
    plain = measure_activity(shape, sites, lengths)
    for one, other in zip(
        plain, measure_activity(shape, sites, lengths, network.matrices()), strict=True
    ):
        assert one.reached is None
        assert count_terms(shape, one) == count_terms(shape, other)


def test_models_without_stated_matrices_are_refused():
    with pytest.raises(ValueError, match="weight_density: egru does not state its matrices"):
        ModelConfig(model="egru", weight_density=0.5)


def test_an_epoch_that_is_not_pruned_as_far_is_not_the_configured_network():
    config = TrainConfig(
        model=ModelConfig(model="gru", weight_density=0.5),
        curriculum=(CurriculumStage(num_epochs=6),),
    )
    assert [config.is_as_configured(n) for n in range(6)] == [False] * 3 + [True] * 3


def test_the_budget_counts_the_weights_that_are_there(planted_features, tmp_path):
    """What an epoch of a pruned network is said to cost on dev is what the audit counts."""
    config = TrainConfig(
        model=ModelConfig(
            model="v3", hidden_size=24, weight_density=0.3, threshold=7, encoder_threshold=2
        ),
        objective="frame",
        curriculum=(CurriculumStage(num_epochs=3),),
        batch_size=10,
        optimizer=OptimizerConfig(learning_rate=1e-2),
        budget=BudgetConfig(multiplications_per_s=60_000, first_epoch=0),
        weight_averaging=WeightAveragingConfig(decay=0.8),
    )
    here = WorkerConfig(in_process=True, threads_per_worker=1)
    run = train(config, planted_features, Location.of(tmp_path), here).location
    trained, manifest = load_model(run), read_manifest(planted_features, FeaturizeManifest)
    network = trained.network
    shape = NetworkShape(network.config, network.num_features, network.num_outputs)
    rows = list(iter_rows(planted_features, manifest, manifest.splits["dev"]))
    batch = collate(rows, trained.manifest.cmvn)
    with torch.inference_mode():
        sites = network(batch.x_TBF, batch.lengths_B).site_outputs
    activities = measure_activity(shape, sites, batch.lengths_B, network.matrices())
    whole = sum(activities[1:], activities[0])
    per_s = audited(count_terms(shape, whole)) / whole.num_frames / manifest.frame_shift_s
    told = [epoch.multiplications_per_s for epoch in trained.manifest.metrics]
    # What is not pruned yet in the first epoch costs more, and does not lower the aim of the next.
    assert told[0] > 1.2 * told[-1]
    assert trained.manifest.metrics[0].budget_excess < 1.2
    assert per_s == pytest.approx(told[trained.manifest.best_epoch], rel=1e-6)
    assert per_s != pytest.approx(
        closed_form(shape, [n / whole.num_frames for n in whole.emitted]) / manifest.frame_shift_s,
        rel=1e-3,
    )
