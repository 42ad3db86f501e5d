"""v3: trajectories checked by hand, its gradients in closed form, and v2 as its limit."""

import math

import pytest
import torch

from training.lif import FiringRule, LifState, encoder_step, gated_step
from training.models.build import build_network
from training.models.counting import Activity, NetworkShape, audited, closed_form, count_terms
from training.models.leaky_config import LeakyConfig
from training.models.model_config import ModelConfig
from training.quantizer import THRESHOLD_WINDOW, Quantizer, fire
from training.train_config import QuantizationScheduleConfig

# A range that makes the scale exactly 32 levels per unit at six bits.
RANGE_M = 31.9968 / 32
UNIT = 1 / 32
OFF = LeakyConfig(residue_leak=False, learned_levels=False)


def levels(threshold=4.0, *, learned=False):
    return Quantizer(
        torch.tensor(RANGE_M, requires_grad=learned),
        torch.tensor(threshold, requires_grad=learned),
        6,
    )


def column(*values):
    return torch.tensor([values])


def rest(num_neurons=1):
    return LifState.zeros(1, num_neurons, torch.device("cpu"))


def test_a_residue_leaks_until_nothing_is_left_to_fire():
    # lambda 1/2: 3 units are silent and leave 1.5; with 2 more 3.5 are silent and leave 1.75;
    # with 4.25 more 6 fire all. Without the leak the second frame would have fired 5.
    firing = FiringRule(levels(), torch.tensor([0.5]))
    state, spikes, residues = rest(), [], []
    for frame in (3 * UNIT, 2 * UNIT, 4.25 * UNIT):
        state, _ = encoder_step(column(frame), state, firing)
        spikes.append(round(state.spikes.item() / UNIT, 3))
        residues.append(round(state.residue.item() / UNIT, 3))
    assert spikes == [0, 0, 6]
    assert residues == [1.5, 1.75, 0.0]


def test_a_current_below_the_leaking_share_of_the_threshold_never_fires():
    # R converges to lambda I / (1 - lambda), V to I / (1 - lambda): 4 units at I = 2, lambda 1/2.
    firing = FiringRule(levels(), torch.tensor([0.5]))
    for current, fires in ((1.99, False), (2.2, True)):
        state, fired = rest(), 0.0
        for _ in range(100):
            state, _ = encoder_step(column(current * UNIT), state, firing)
            fired += state.spikes.item()
        assert (fired > 0) == fires


def test_v3_feeds_spikes_back_into_both_drives():
    weight = torch.zeros(4, 2)
    weight[2 + 1, 0] = 0.5
    before = LifState(torch.zeros(1, 2), torch.zeros(1, 2), column(16 * UNIT, 0.0))
    after, _ = gated_step(
        column(0.0, 0.0), column(0.0, 0.0), None, weight, before, FiringRule(levels())
    )
    assert (after.synaptic_current / UNIT).tolist() == [[0, 4]]


def test_gradients_of_the_quantiser_are_the_closed_forms():
    scale, tau, top = 32.0, 4.0, 31
    # far below the threshold, just below, just above, well above, beyond the range, negative
    at = torch.tensor([1.0, 3.5, 4.5, 9.25, 99.0, -9.25])
    weight = torch.tensor([1.0, 10.0, 100.0, 1e3, 1e4, 1e5], dtype=torch.float64)
    potential = (at / scale).requires_grad_()
    quantizer = levels(tau, learned=True)
    (fire(potential, quantizer).double() * weight).sum().backward()
    inside = [1, 1, 1, 1, 0, 1]
    assert potential.grad.tolist() == [w * i for w, i in zip(weight.tolist(), inside, strict=True)]
    # Y - V inside, Y outside, in levels
    per_range = [-1.0, -3.5, -0.5, -0.25, float(top), 0.25]
    expected = sum(w * r for w, r in zip(weight.tolist(), per_range, strict=True))
    assert quantizer.range_M.grad.item() == pytest.approx(expected / scale / RANGE_M, rel=1e-4)
    near = -tau / scale / THRESHOLD_WINDOW
    assert quantizer.threshold_levels.grad.item() == pytest.approx(110 * near, rel=1e-5)


def test_the_ranges_gradient_is_that_of_scaling_a_fine_quantiser():
    """With a threshold below every level, Y of (V, M) is M Y(V / M): Euler's theorem holds."""
    potential = torch.linspace(0.05, 1.5, 40, requires_grad=True)
    quantizer = levels(1.0, learned=True)
    spikes = fire(potential, quantizer)
    grad_potential, grad_range = torch.autograd.grad(spikes.sum(), (potential, quantizer.range_M))
    euler = (grad_potential * potential).sum() + grad_range * quantizer.range_M
    assert euler.item() == pytest.approx(spikes.sum().item(), rel=1e-5)


def test_gradient_of_the_leak_is_the_sum_of_what_it_scales():
    # 3 units silent, 3 more silent, then one more frame fires everything: Y_3 = V_3 up to a
    # level, dY_3 / dV_3 = 1 and dV_3 / dlambda = R_1' + lambda ... by hand: V_1 = 3,
    # V_2 = 3 lambda + 0.5, V_3 = lambda V_2 + 8; dV_3 / dlambda = V_2 + lambda dV_2 / dlambda.
    # Q's slope inside the clip is 1 for silent outputs too, so that Y_1 and Y_2, which are zero,
    # take V_1 and V_2 back out of the residue: only the direct V_2 - Y_2 remains.
    leak = torch.tensor([0.5], requires_grad=True)
    firing = FiringRule(levels(), leak)
    state = rest()
    for frame in (3.0, 0.5, 8.0):
        state, _ = encoder_step(column(frame * UNIT), state, firing)
    state.spikes.sum().backward()
    assert leak.grad.item() == pytest.approx(2.0 * UNIT, rel=1e-5)


def test_gradient_beyond_the_range_leaks_with_the_residue():
    drive = torch.tensor([[40 * UNIT], [0.0]], requires_grad=True)
    firing = FiringRule(levels(), torch.tensor([0.75]))
    state = rest()
    for t in range(2):
        state, _ = encoder_step(drive[t : t + 1], state, firing)
    state.spikes.sum().backward()
    assert drive.grad.flatten().tolist() == [0.75, 1.0]


def test_v3_with_every_option_off_is_v2():
    networks = []
    for model, changes in (("v2", {}), ("v3", {"v3": OFF})):
        torch.manual_seed(0)
        config = ModelConfig(
            model=model, hidden_size=24, dropout=0.0, backend="reference", **changes
        )
        network = build_network(config, 6, 5)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            output = network(3 * torch.randn(17, 3, 6), torch.tensor([17, 9, 1]))
            output.log_probs_TBO[..., 1].sum().neg().backward()
            optimizer.step()
            network.after_step()
        networks.append(network.eval())
    v2, v3 = networks
    assert v2.state_dict().keys() == v3.state_dict().keys()
    for name, value in v2.state_dict().items():
        assert torch.equal(value, v3.state_dict()[name]), name
    x, lengths = torch.randn(11, 2, 6), torch.tensor([11, 7])
    assert torch.equal(v2(x, lengths).log_probs_TBO, v3(x, lengths).log_probs_TBO)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"residue_leak": False},
        {"learned_levels": False},
    ],
)
def test_every_choice_of_options_trains(changes):
    torch.manual_seed(2)
    config = ModelConfig(model="v3", hidden_size=24, dropout=0.0, v3=LeakyConfig(**changes))
    network = build_network(config, 6, 5)
    before = {name: value.clone() for name, value in network.named_parameters()}
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    x, lengths = 3 * torch.randn(17, 3, 6), torch.tensor([17, 9, 3])
    targets = torch.randint(5, (17, 3))
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        scores = network(x, lengths).log_probs_TBO
        loss = -scores.gather(2, targets.unsqueeze(2)).sum() / 29
        loss.backward()
        optimizer.step()
        network.after_step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    for name, value in network.named_parameters():
        assert not torch.equal(value, before[name]), name
    learned = {name.rsplit(".", 1)[-1] for name in before}
    assert ("leak_logit" in learned) == changes.get("residue_leak", True)
    assert ("log_range" in learned) == changes.get("learned_levels", True)


@pytest.mark.parametrize("model", ["conventional", "v2", "v3", "ligru"])
def test_the_projection_is_a_linear_map_that_padding_does_not_enter(model):
    torch.manual_seed(3)
    config = ModelConfig(model=model, hidden_size=12, dropout=0.0, projection_size=3)
    network = build_network(config, 6, 5).eval()
    x, lengths = torch.randn(9, 2, 6), torch.tensor([9, 4])
    spoilt = x.clone()
    spoilt[4:, 1] = 1e3
    plain, other = network(x, lengths), network(spoilt, lengths)
    assert plain.site_outputs[0].shape == (9, 2, 3)
    for a, b in zip(plain.site_outputs, other.site_outputs, strict=True):
        assert torch.equal(a, b)


def test_thresholds_climb_with_the_schedule():
    config = ModelConfig(model="v3", hidden_size=12, dropout=0.0, threshold=7, encoder_threshold=3)
    network = build_network(config, 6, 5)
    site = network.layers[0].site
    schedule = QuantizationScheduleConfig(unquantized_epochs=1, threshold_epochs=2)
    taus, num_bits = [], []
    for epoch in range(4):
        network.begin_epoch(schedule, epoch)
        quantizer = site.firing().quantizer
        taus.append(quantizer.threshold_levels.item())
        num_bits.append(quantizer.num_bits)
    assert num_bits == [32, 6, 6, 6]
    assert taus[1:] == pytest.approx([1.0, 5.0, 8.0], rel=1e-5)  # 8/8 of half of 7 is 4, plus one


def test_counts_of_v3_add_the_projection_and_the_leak():
    config = ModelConfig(
        model="v3", hidden_size=100, projection_size=16, threshold=7, encoder_threshold=3
    )
    shape = NetworkShape(config, 40, 1000)
    assert shape.site_sizes == (16, 100, 100)
    activity = Activity(10, (80, 50, 30), (45, 27))
    terms = {term.term: term.multiplications for term in count_terms(shape, activity)}
    assert terms["projection"] == 10 * 16 * 40
    assert terms["feed_forward_1"] == 80 * 200
    assert terms["recurrent_2"] == 27 * 200
    assert terms["output"] == 30 * 1000
    # F I and (1 - F) C; s V and lambda (V - Y) of every neuron; Y = k / s of every spike
    assert terms["elementwise"] == 10 * (2 * 200 + 2 * 216) + 160
    matrix = audited(count_terms(shape, activity))
    assert matrix == 6400 + 80 * 200 + 50 * 200 + 45 * 200 + 27 * 200 + 30 * 1000
    by_means = closed_form(shape, (8.0, 5.0, 3.0))
    assert 10 * by_means == matrix + (5 + 3) * 200  # feedback of the last frame


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "gru", "projection_size": 3}, "projection_size=3: gru admits no projection"),
        ({"model": "v3", "num_bits": 1, "threshold": 0}, "num_bits=1"),
        ({"model": "v3", "threshold": 31, "encoder_threshold": 3}, "silences every spike"),
        ({"model": "v3", "recompute_frames": 10}, "recompute_frames"),
    ],
)
def test_config_errors_name_field_and_remedy(changes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**changes)


def test_the_learned_leak_stays_between_nothing_and_all():
    config = ModelConfig(model="v3", hidden_size=8, dropout=0.0)
    site = build_network(config, 6, 5).layers[0].site
    assert site.residue_leak().tolist() == pytest.approx([0.9] * 8)
    for logit in (-50.0, 50.0):
        with torch.no_grad():
            site.leak_logit.fill_(logit)
        leak = site.residue_leak()
        assert bool(((leak >= 0) & (leak <= 1)).all())
        assert math.isclose(leak[0].item(), float(logit > 0), abs_tol=1e-6)
