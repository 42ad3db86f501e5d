"""Rounded weights: few levels, of one step in each row, near what they were."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.rounding import round_weights
from training.models.build import build_network
from training.models.model_config import ModelConfig


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 8), st.sampled_from(["gru", "ligru", "v3"]))
def test_every_row_has_few_levels_and_no_weight_moves_by_more_than_half_a_step(bits, model):
    network = build_network(ModelConfig(model=model, hidden_size=7), 4, 3)
    with torch.no_grad():
        network.output.linear.weight[1].zero_()
    before = {name: weight.detach().clone() for name, weight in network.matrices().items()}
    round_weights(network, bits)
    for name, weight in network.matrices().items():
        for old, new in zip(before[name], weight.detach(), strict=True):
            step = float(old.abs().max()) / (2 ** (bits - 1) - 1)
            assert float((old - new).abs().max()) <= 0.5001 * step
            levels = new / step if step else new
            assert levels.round() == pytest.approx(levels, abs=1e-4)
            assert float(levels.abs().max()) == pytest.approx(2 ** (bits - 1) - 1 if step else 0)
