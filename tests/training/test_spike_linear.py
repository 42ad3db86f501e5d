"""The linear map of spikes: sparse and dense paths against PyTorch's own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.kernels import cpu_matrix, operators
from training.spike_linear import spike_linear


def spikes_and_weight(num_rows, num_inputs, num_outputs, density, seed):
    generator = torch.Generator().manual_seed(seed)
    spikes = torch.randn(num_rows, num_inputs, generator=generator)
    spikes *= torch.rand(num_rows, num_inputs, generator=generator) < density
    weight = torch.randn(num_outputs, num_inputs, generator=generator)
    return spikes.requires_grad_(), weight.requires_grad_()


@settings(max_examples=40, deadline=None)
@given(
    num_rows=st.sampled_from([0, 1, 64, 65, 600, 2100]),
    num_inputs=st.sampled_from([1, 40, 64, 65, 130]),
    num_outputs=st.sampled_from([1, 7, 64, 100]),
    density=st.sampled_from([0.0, 0.05, 0.2, 1.0]),
    seed=st.integers(0, 1000),
)
def test_product_and_gradients_equal_the_dense_ones(
    num_rows, num_inputs, num_outputs, density, seed
):
    spikes, weight = spikes_and_weight(num_rows, num_inputs, num_outputs, density, seed)
    cotangent = torch.randn(num_rows, num_outputs, generator=torch.Generator().manual_seed(seed))
    expected = torch.nn.functional.linear(spikes, weight)
    gradients = torch.autograd.grad(expected, (spikes, weight), cotangent)
    found = spike_linear(spikes, weight)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    for a, b in zip(
        torch.autograd.grad(found, (spikes, weight), cotangent), gradients, strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-3)


def test_density_decides_the_path():
    sparse, _ = spikes_and_weight(500, 150, 3, 0.1, 0)
    dense, _ = spikes_and_weight(500, 150, 3, 0.9, 0)
    assert cpu_matrix.is_sparse(sparse, 0.3)
    assert not cpu_matrix.is_sparse(dense, 0.3)


def test_gradient_of_the_spikes_is_skipped_where_not_wanted():
    spikes, weight = spikes_and_weight(100, 150, 5, 0.1, 0)
    spike_linear(spikes.detach(), weight).sum().backward()
    assert weight.grad is not None
    assert spikes.grad is None


@pytest.mark.parametrize("density", [0.1, 1.0])
def test_passes_opcheck(density):
    arguments = spikes_and_weight(100, 150, 5, density, 0)
    for in_order in (False, True):
        torch.library.opcheck(operators.spike_linear, (*arguments, in_order), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("density", [0.1, 0.7])
def test_without_gradients_a_row_does_not_depend_on_the_batch(density):
    spikes, weight = spikes_and_weight(100, 600, 70, density, 0)
    with torch.inference_mode():
        together = spike_linear(spikes, weight)
        for number in (0, 57, 99):
            alone = spike_linear(spikes[number : number + 1], weight)
            assert torch.equal(alone[0], together[number])


def test_autocast_does_not_change_the_product():
    spikes, weight = spikes_and_weight(100, 150, 5, 0.9, 0)
    with torch.autocast("cpu", torch.bfloat16):
        found = spike_linear(spikes, weight)
    assert torch.equal(found, spike_linear(spikes, weight))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="must be"):
        spike_linear(torch.zeros(3, 4), torch.zeros(5, 6))
