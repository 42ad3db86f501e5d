"""Recomputation in chunks gives what keeping everything gives."""

import copy

import pytest
import torch
from pydantic import ValidationError

from training.models.build import build_network
from training.models.model_config import ModelConfig

LENGTHS = torch.tensor([23, 17, 1, 0])


def step(network, x, masks):
    torch.manual_seed(2)
    output = network(x, LENGTHS, dropout_masks=masks)
    weights = torch.randn(output.log_probs_TBO.shape)
    loss = (output.log_probs_TBO * weights).sum()
    loss = loss + sum((part * 0.3).sum() for site in output.state for part in site)
    loss.backward()
    network.after_step()
    return output


@pytest.mark.parametrize("model", ["conventional", "v1", "v2"])
@pytest.mark.parametrize("num_bits", [32, 6])
@pytest.mark.parametrize("chunk_frames", [1, 5, 23, 100])
def test_equals_the_ordinary_pass(model, num_bits, chunk_frames):
    torch.manual_seed(1)
    config = ModelConfig(model=model, hidden_size=12, num_bits=num_bits)
    plain = build_network(config, 6, 5)
    again = build_network(config.model_copy(update={"recompute_frames": chunk_frames}), 6, 5)
    again.load_state_dict(copy.deepcopy(plain.state_dict()))
    x = torch.randn(23, 4, 6)
    masks = plain.sample_dropout(4, torch.Generator().manual_seed(0))
    expected, found = step(plain, x, masks), step(again, x, masks)
    torch.testing.assert_close(found.log_probs_TBO, expected.log_probs_TBO, rtol=1e-5, atol=1e-5)
    for a, b in zip(expected.site_outputs, found.site_outputs, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5)
    for (name, a), b in zip(plain.named_parameters(), again.parameters(), strict=True):
        size = float(a.grad.abs().max())
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-4 * size, msg=name)
    for (name, a), b in zip(plain.named_buffers(), again.buffers(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-6, msg=name)


def test_evaluation_is_untouched():
    torch.manual_seed(1)
    config = ModelConfig(model="v2", hidden_size=12)
    plain = build_network(config, 6, 5)
    again = build_network(config.model_copy(update={"recompute_frames": 4}), 6, 5)
    again.load_state_dict(plain.state_dict())
    x = torch.randn(23, 4, 6)
    assert torch.equal(
        plain.eval()(x, LENGTHS).log_probs_TBO, again.eval()(x, LENGTHS).log_probs_TBO
    )


def test_keeps_less_for_the_backward_pass():
    """Bytes that autograd holds after the forward pass of a v2 layer's norm and recurrence."""

    def kept(recompute_frames):
        held = {}

        def pack(tensor):
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        config = ModelConfig(model="v2", hidden_size=64, recompute_frames=recompute_frames)
        network = build_network(config, 8, 2)
        x, lengths = torch.randn(200, 4, 8), torch.tensor([200] * 4)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(x, lengths)
        return sum(held.values())

    assert kept(20) < 0.75 * kept(None)


def test_refuses_the_range_that_moves_within_a_sequence():
    with pytest.raises(ValidationError, match="recompute_frames"):
        ModelConfig(range_update="timestep", recompute_frames=10)
