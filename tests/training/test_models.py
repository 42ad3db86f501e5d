import pytest
import torch

from training.lif import LifState
from training.models.batch_norm import FrameBatchNorm, _moments, _SyncedNormalize
from training.models.build import build_network
from training.models.frames import ValidFrames
from training.models.model_config import ModelConfig
from training.models.registry import BUILT_IN

MODELS = list(BUILT_IN)
LENGTHS = torch.tensor([23, 17, 1, 0])


def trained(model, hidden_size=24, steps=3, **changes):
    """A small network some steps from its initialisation, in evaluation mode."""
    torch.manual_seed(1)
    config = ModelConfig(model=model, hidden_size=hidden_size, dropout=0.0, **changes)
    network = build_network(config, 6, 5)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        output = network(torch.randn(23, 4, 6), LENGTHS)
        output.log_probs_TBO[:, :, 0].sum().neg().backward()
        optimizer.step()
        network.after_step()
    return network.eval()


@pytest.mark.parametrize("model", MODELS)
def test_padding_changes_nothing_in_evaluation(model):
    network = trained(model)
    x = torch.randn(23, 4, 6)
    padded = torch.cat([x, 1e3 * torch.randn(9, 4, 6)])
    for row, length in enumerate(LENGTHS):
        padded[length:23, row] = -77.0
    plain, longer = network(x, LENGTHS), network(padded, LENGTHS)
    torch.testing.assert_close(longer.log_probs_TBO[:23], plain.log_probs_TBO)
    for a, b in zip(plain.site_outputs, longer.site_outputs, strict=True):
        torch.testing.assert_close(b[:23], a)
        assert not b[23:].any()


@pytest.mark.parametrize("model", MODELS)
def test_padding_enters_no_gradient_statistic_or_range(model):
    """The same utterances with more padding: same gradients, BN statistics and ranges."""
    x = torch.randn(23, 4, 6, generator=torch.Generator().manual_seed(3))
    results = []
    for extra in (0, 11):
        torch.manual_seed(5)
        network = build_network(ModelConfig(model=model, hidden_size=24, dropout=0.0), 6, 5)
        padded = torch.cat([x, torch.full((extra, 4, 6), 50.0)])
        output = network(padded, LENGTHS)
        output.log_probs_TBO[..., 1].sum().backward()
        network.after_step()
        results.append(network)
    plain, longer = results
    for (name, a), b in zip(plain.named_parameters(), longer.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-5, msg=name)
    for (name, a), b in zip(plain.named_buffers(), longer.buffers(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("chunk", [1, 5, 23])
def test_streaming_in_chunks_equals_the_whole(model, chunk):
    network = trained(model)
    x = torch.randn(23, 2, 6)
    whole = network(x, torch.tensor([23, 23]))
    state, parts = None, []
    for piece in x.split(chunk):
        output = network(piece, torch.full((2,), len(piece)), state)
        state = output.state
        parts.append(output.log_probs_TBO)
    torch.testing.assert_close(torch.cat(parts), whole.log_probs_TBO, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_state_is_that_of_the_last_valid_frame(model):
    network = trained(model)
    x = torch.randn(23, 4, 6)
    ragged = network(x, LENGTHS)
    for row, length in enumerate(LENGTHS):
        alone = network(x[:length, row : row + 1], LENGTHS[row : row + 1]) if length else None
        for number, site in enumerate(ragged.state):
            for part, value in enumerate(site):
                got = value[..., row, :].flatten()
                want = torch.zeros_like(got)
                if alone is not None:
                    want = alone.state[number][part].flatten()
                torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_recurrent_parameters_are_half_an_lstms():
    counts = {
        model: build_network(ModelConfig(model=model), 40, 1000).num_recurrent_parameters()
        for model in ("v2", "lstm", "gru")
    }
    # By hand: 2H(F + H) + 2H(H + H) and two values of BN per drive, for H = 550, F = 40.
    assert counts["v2"] == 1100 * 590 + 1100 * 1100 + 2 * 2200
    assert counts["lstm"] / counts["v2"] == pytest.approx(2.0, rel=0.01)


def test_initialisation_follows_the_paper():
    torch.manual_seed(0)
    network = build_network(ModelConfig(model="v2", hidden_size=64), 40, 30)
    layer = network.layers[1]
    bound = (3.0 / 64) ** 0.5
    weight = layer.input_map.weight
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.95 * bound
    product = layer.recurrent_weight.T @ layer.recurrent_weight
    torch.testing.assert_close(product, 2.0 * torch.eye(64), rtol=0, atol=1e-4)
    assert network.output.linear.weight.abs().max() <= (0.01 / (64 + 30)) ** 0.5


def test_decay_stays_in_its_bounds():
    network = build_network(ModelConfig(model="conventional", hidden_size=3), 2, 2)
    with torch.no_grad():
        network.layers[0].decay.copy_(torch.tensor([-1.0, 0.5, 2.0]))
    network.after_step()
    assert network.layers[0].decay.tolist() == [0.0, 0.5, 1.0]


def test_range_is_constant_in_a_forward_pass_and_moves_after_the_step():
    torch.manual_seed(0)
    network = build_network(ModelConfig(model="v2", hidden_size=16), 6, 5)
    x, lengths = torch.randn(30, 2, 6), torch.tensor([30, 30])
    tracker = network.layers[0].site.tracker
    network(x, lengths)
    seen = tracker.range_M().clone()
    assert int(tracker.num_updates) == 1
    network(x, lengths)
    assert tracker.range_M() == seen
    network.after_step()
    assert int(tracker.num_updates) == 2
    network.eval()
    network(10 * x, lengths)
    network.after_step()
    assert int(tracker.num_updates) == 2


def test_timestep_range_moves_every_frame():
    torch.manual_seed(0)
    config = ModelConfig(model="v1", hidden_size=8, range_update="timestep")
    network = build_network(config, 6, 5)
    network(torch.randn(7, 2, 6), torch.tensor([7, 4]))
    assert int(network.encoder_site.tracker.num_updates) == 7


@pytest.mark.parametrize("num_bits", [1, 2, 6, 32])
def test_every_bit_width_trains(num_bits):
    network = trained("v2", num_bits=num_bits, threshold=0, steps=2)
    output = network(torch.randn(40, 3, 6), torch.tensor([40, 30, 20]))
    spikes = output.site_outputs[0]
    assert spikes.any()
    if num_bits != 32:
        tracker = network.encoder_site.tracker
        levels = spikes.abs() / tracker.range_M() * 2 ** (num_bits - 1)
        assert torch.unique(levels.round()).numel() <= max(2, 2 ** (num_bits - 1))


@pytest.mark.parametrize("model", MODELS)
def test_dropout_mask_is_one_per_layer_and_sequence(model):
    config = ModelConfig(model=model, hidden_size=400, dropout=0.25)
    network = build_network(config, 6, 5)
    masks = network.sample_dropout(8, torch.Generator().manual_seed(0))
    assert len(masks) == 2
    assert masks[0].shape == (8, 400)
    assert masks[0].unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert masks[0].mean() == pytest.approx(1.0, abs=0.05)
    dropped = network(torch.randn(9, 8, 6), torch.full((8,), 9), None, masks).site_outputs[1]
    silent = (masks[0] == 0).expand(9, 8, 400)
    assert not dropped[silent].any()
    assert dropped[~silent].any()


def test_batch_norm_equals_torch_and_its_synced_form():
    torch.manual_seed(0)
    x = torch.randn(50, 7) * 3 + 1
    ours, theirs = FrameBatchNorm(7), torch.nn.BatchNorm1d(7, momentum=None)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    synced = FrameBatchNorm(7)
    torch.testing.assert_close(synced._forward_synced(x), theirs(x))
    torch.testing.assert_close(synced.running_var, ours.running_var)
    scale, shift = ours.eval().scale_and_shift()
    torch.testing.assert_close(x * scale + shift, ours(x))


@pytest.mark.parametrize("num_frames", [6433, 10_001])
def test_frames_are_counted_and_summed_exactly_in_bfloat16(num_frames):
    torch.manual_seed(0)
    x = (torch.randn(num_frames, 3) + 2.0).bfloat16()
    synced = FrameBatchNorm(3)
    mean, variance, count = _moments(x)
    assert count == num_frames
    torch.testing.assert_close(mean, x.float().mean(0))
    torch.testing.assert_close(variance, x.float().var(0, unbiased=False))
    x.requires_grad_()
    whole = x.detach().float().requires_grad_()
    weights = torch.randn(num_frames, 3)
    (synced._forward_synced(x) * weights).sum().backward()
    (FrameBatchNorm(3)._forward_synced(whole) * weights).sum().backward()
    assert x.grad.dtype == torch.bfloat16
    torch.testing.assert_close(x.grad.float(), whole.grad, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("form", ["forward", "_forward_synced", "moments"])
def test_batch_norm_evaluates_by_the_mean_over_a_hundred_batches_of_the_epoch(form):
    """Of the running epoch alone; torch's cumulative average is the same while there are fewer."""
    torch.manual_seed(0)
    ours, theirs = FrameBatchNorm(3), torch.nn.BatchNorm1d(3, momentum=None)
    before = torch.randn(20, 3) + 100.0
    getattr(ours, form)(before)
    ours.begin_epoch()
    for number in range(1, 101):
        x = torch.randn(20, 3) * number
        getattr(ours, form)(x)
        theirs(x)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    last = torch.randn(20, 3) + 1000.0
    expected = 0.99 * ours.running_mean + 0.01 * last.mean(0)
    getattr(ours, form)(last)
    torch.testing.assert_close(ours.running_mean, expected)


def test_every_epoch_begins_with_its_own_batches():
    network = build_network(ModelConfig(model="v2", hidden_size=8), 6, 5)
    lengths = torch.full((4,), 9)
    network(torch.randn(9, 4, 6) + 50.0, lengths)
    network.begin_epoch(None, 1)
    x = torch.randn(9, 4, 6)
    network(x, lengths)
    fresh = build_network(ModelConfig(model="v2", hidden_size=8), 6, 5)
    fresh.load_state_dict(network.state_dict())
    fresh(x, lengths)
    for ours, theirs in zip(network.modules(), fresh.modules(), strict=True):
        if isinstance(ours, FrameBatchNorm):
            assert torch.equal(ours.running_mean, theirs.running_mean)
            assert torch.equal(ours.running_var, theirs.running_var)


def test_synced_batch_norm_gradient():
    x = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: _SyncedNormalize.apply(v)[0], (x,))


def test_frames_pack_and_unpack():
    x = torch.arange(24.0).reshape(4, 3, 2)
    frames = ValidFrames(torch.tensor([4, 2, 0]), 4)
    packed = frames.pack(x)
    assert packed.shape == (6, 2)
    restored = frames.unpack(packed)
    assert torch.equal(restored, torch.where(frames.mask_TB1, x, 0.0))


def test_config_errors_name_field_and_remedy():
    with pytest.raises(ValueError, match="use 1 to 8, or 32"):
        ModelConfig(num_bits=12)
    with pytest.raises(ValueError, match="smaller threshold or more bits"):
        ModelConfig(num_bits=3, threshold=3)
    with pytest.raises(ValueError, match="backend=reference"):
        ModelConfig(range_update="timestep", backend="cpu")


def test_state_is_named():
    network = trained("v1")
    output = network(torch.randn(3, 1, 6), torch.tensor([3]))
    assert all(isinstance(site, LifState) for site in output.state)


@pytest.mark.parametrize("forward", [FrameBatchNorm.forward, FrameBatchNorm._forward_synced])
def test_statistics_that_overflow_are_not_kept(forward):
    """Scores stay numbers: of 0 times infinity no later batch would make one."""
    norm, before = FrameBatchNorm(2), FrameBatchNorm(2)
    for one in (norm, before):
        forward(one, torch.arange(10.0).reshape(5, 2))
    forward(norm, torch.tensor([[1e30, 0.0], [-1e30, 1.0]]))
    assert norm.running_var[0] == before.running_var[0]
    assert norm.running_var[1] != before.running_var[1]
    norm.begin_epoch()
    forward(norm, torch.arange(8.0).reshape(4, 2))
    assert torch.isfinite(norm.eval()(torch.ones(3, 2))).all()
