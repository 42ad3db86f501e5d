"""What a second of speech costs, by hand."""

import pytest
import torch

from evaluation.workload import StoredNetwork, stored_network, workload
from training.models.build import build_network
from training.models.counting import Activity, NetworkShape, count_terms, dense_activity
from training.models.model_config import ModelConfig

STORED = StoredNetwork(footprint_bytes=1000, num_weights=200, num_zero_weights=50)


def shape(model, **changes):
    return NetworkShape(ModelConfig(model=model, hidden_size=10, **changes), 4, 3)


def test_a_sparse_model_by_hand():
    # Ten frames of 20 ms: 0.2 s. Encoder 8, layers 15 and 12 events, 13 and 11 of them fed back.
    found = workload(shape("v2"), Activity(10, (8, 15, 12), (13, 11)), STORED, 0.02, 3)
    products = 8 * 20 + 15 * 20 + 13 * 20 + 11 * 20 + 12 * 3
    assert found.multiplications_per_s == pytest.approx(products / 0.2)
    assert found.weight_bytes_per_s == pytest.approx(4 * products / 0.2)
    assert found.effective_macs == pytest.approx(products / 10)
    assert found.effective_acs == 0
    assert found.dense_operations == 4 * 20 + 10 * 20 + 2 * 10 * 20 + 10 * 3
    assert found.activation_sparsity == pytest.approx(1 - 35 / 240)
    assert found.connection_sparsity == 0.25
    assert found.execution_rate_hz == pytest.approx(50)
    assert found.look_ahead_ms == pytest.approx(60)


def test_binary_spikes_are_accumulates_and_features_are_not():
    found = workload(shape("radlif"), Activity(5, (20, 6, 4), (5, 3)), STORED, 0.01, 0)
    assert found.effective_macs == pytest.approx(20 * 10 / 5)
    assert found.effective_acs == pytest.approx((6 * 10 + 5 * 9 + 3 * 9 + 4 * 3) / 5)
    assert found.activation_sparsity == pytest.approx(1 - 10 / 100)
    assert found.multiplications_per_s == pytest.approx(20 * 10 / 0.05)
    assert found.weight_bytes_per_s == pytest.approx(4 * 344 / 0.05)


def test_of_a_dense_model_everything_is_effective():
    of_gru = shape("gru")
    found = workload(of_gru, dense_activity(of_gru, 7), STORED, 0.01, 0)
    assert found.effective_macs == found.dense_operations == 3 * (4 + 10 + 10 + 10) * 10 + 10 * 3
    assert found.activation_sparsity == 0


@pytest.mark.parametrize("model", ["v2", "v3", "gru", "egru", "radlif"])
def test_effective_operations_never_exceed_the_dense_ones(model):
    of_model = shape(model)
    everything = dense_activity(of_model, 3)
    found = workload(of_model, everything, STORED, 0.01, 0)
    assert found.effective_macs + found.effective_acs == pytest.approx(found.dense_operations)
    additions = sum(t.additions for t in count_terms(of_model, everything))
    assert found.additions_per_s == pytest.approx(additions / 0.03)


def test_a_network_is_measured_as_it_is_stored():
    network = build_network(ModelConfig(model="radlif", hidden_size=10, num_layers=1), 4, 3)
    found = stored_network(network)
    # W 4 x 10, V 10 x 10, W_o 10 x 3; alpha, beta, a, b; two norms with four vectors each.
    assert found.num_weights == 40 + 100 + 30
    assert found.num_zero_weights == 10
    assert found.footprint_bytes == 4 * (170 + 40 + 4 * 10 + 4 * 3)
    with torch.no_grad():
        network.output.linear.weight[0].zero_()
    assert stored_network(network).num_zero_weights == 20
