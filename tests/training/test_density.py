import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.density import density_penalty
from training.models.model_config import ModelConfig
from training.train_config import DensityConfig

ENCODER = torch.ones(1, 1, 3)
LENGTHS = torch.tensor([2])


def penalty(values, target=0.0, weight=1.0):
    """Of one layer of two neurons over two frames, and its gradient."""
    outputs = torch.tensor(values, dtype=torch.float64).reshape(2, 1, 2).requires_grad_()
    config = DensityConfig(weight=weight, targets=(target,))
    value = density_penalty([ENCODER, outputs], LENGTHS, config)
    value.backward()
    return float(value.detach()), outputs.grad.flatten()


def test_equals_the_density_where_all_spikes_are_of_one_size():
    value, gradient = penalty([0.5, 0.0, -0.5, 0.0])
    assert value == pytest.approx(0.5)
    assert torch.allclose(gradient, torch.zeros(4, dtype=torch.float64))


def test_hand_computed_value_and_gradient():
    # sum |y| = 4, sum y^2 = 10, N = 4: S = 16/40; dS/dy = 2*4/(4*10) (sign y - y 4/10)
    value, gradient = penalty([3.0, 0.0, -1.0, 0.0], weight=2.0)
    assert value == pytest.approx(2.0 * 0.4)
    expected = [2 * 0.2 * (1 - 1.2), 0.0, 2 * 0.2 * (-1 + 0.4), 0.0]
    assert gradient.tolist() == pytest.approx(expected)


@given(
    st.lists(st.integers(-31, 31), min_size=4, max_size=4).filter(any),
    st.floats(1e-3, 1e3),
)
def test_gradient_is_that_of_the_measure_which_bounds_the_density(levels, scale):
    values = [scale * level for level in levels]
    value, gradient = penalty(values)
    y = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    measure = y.abs().sum().square() / (4 * y.square().sum())
    (expected,) = torch.autograd.grad(measure, y)
    assert value == pytest.approx(float(measure.detach()))
    assert torch.allclose(gradient, expected, rtol=1e-6, atol=1e-9 / scale)
    assert 1 / 4 - 1e-9 <= value <= np.count_nonzero(levels) / 4 + 1e-9
    # Scaling all outputs changes nothing, so the gradient has no part along them.
    assert float(gradient @ y.detach()) == pytest.approx(0.0, abs=1e-6)


def test_a_layer_at_its_target_and_a_silent_one_are_left_alone():
    for values, target in (([3.0, 0.0, -1.0, 0.0], 0.5), ([0.0] * 4, 0.0)):
        value, gradient = penalty(values, target)
        assert value == 0.0
        assert not gradient.any()


def test_every_layer_has_its_own_target_and_padding_is_no_output():
    layer = torch.tensor([3.0, 0.0, -1.0, 0.0]).reshape(2, 1, 2)
    padded = torch.cat([layer, torch.zeros(3, 1, 2)])
    both = DensityConfig(weight=1.0, targets=(0.6, 0.2))
    assert float(density_penalty([ENCODER, layer, padded], LENGTHS, both)) == pytest.approx(0.4)


def test_the_shares_of_two_workers_add_up(monkeypatch):
    whole = torch.randn(6, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    config = DensityConfig(weight=0.7, targets=(0.2,))
    parts = [part.clone().requires_grad_() for part in (whole[:2], whole[2:])]
    lengths = [torch.tensor([2]), torch.tensor([4])]
    seen = []
    monkeypatch.setattr("training.site_sums.all_sum", lambda sums: seen.append(sums) or sums)
    for part, length in zip(parts, lengths, strict=True):
        density_penalty([ENCODER, part], length, config)
    total = seen[0] + seen[1]
    monkeypatch.setattr("training.site_sums.all_sum", lambda _: total)
    shares = [
        density_penalty([ENCODER, part], length, config)
        for part, length in zip(parts, lengths, strict=True)
    ]
    torch.stack(shares).sum().backward()
    monkeypatch.undo()
    alone = whole.clone().requires_grad_()
    value = density_penalty([ENCODER, alone], torch.tensor([6]), config)
    value.backward()
    assert float(sum(shares).detach()) == pytest.approx(float(value.detach()))
    assert torch.allclose(torch.cat([part.grad for part in parts]), alone.grad)


def test_targets_are_densities():
    with pytest.raises(ValueError, match="between 0 and 1"):
        DensityConfig(weight=1.0, targets=(1.5,))


def test_ones_are_penalised_through_silent_ones_as_well():
    outputs = torch.tensor([1.0, 0.0, 1.0, 0.0]).reshape(2, 1, 2).requires_grad_()
    value = density_penalty(
        [ENCODER, outputs], LENGTHS, DensityConfig(weight=3.0, targets=(0.4,)), are_ones=True
    )
    value.backward()
    assert float(value.detach()) == pytest.approx(3.0 * 0.5)
    assert outputs.grad.flatten().tolist() == pytest.approx([0.75] * 4)
    sparse = density_penalty(
        [ENCODER, outputs], LENGTHS, DensityConfig(weight=3.0, targets=(0.6,)), are_ones=True
    )
    assert float(sparse.detach()) == 0.0


def test_only_spikes_that_are_one_are_penalised_as_ones():
    def sends_ones(model, **changes):
        return ModelConfig(model=model, **changes).sends_ones

    assert sends_ones("adlif")
    assert sends_ones("radlif")
    assert not any(map(sends_ones, ("v1", "v2", "v3", "egru", "deltagru", "gru", "ligru")))
    assert not sends_ones("v2", num_bits=1, threshold=0)
