"""The contestants: trajectories by hand, closed forms, gradients, and two ways to count."""

import math

import pytest
import torch

from evaluation.multiplications import measure_activity
from tests.harness.by_events import run_by_events
from training.models import step_network
from training.models.adaptive_lif import AdaptiveParameters, AdaptiveState, adaptive_step
from training.models.build import build_network
from training.models.counting import Activity, NetworkShape, count_terms
from training.models.delta_gru import DeltaGruState, delta_gru_step, tell
from training.models.egru import EgruState, egru_step
from training.models.families import DeltaGruConfig, EgruConfig
from training.models.model_config import ModelConfig
from training.models.surrogate import boxcar_step, triangle_step

CONTESTANTS = ["deltagru", "egru", "adlif", "radlif"]


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def loud(network):
    """White noise does not reach the threshold of a slow membrane; speech, which is slow, does."""
    for layer in network.layers:
        if network.config.model in ("adlif", "radlif"):
            layer.norm.weight.data.mul_(8.0)
    return network


def logit(p):
    return math.log(p / (1 - p))


def test_egru_by_hand():
    # z = r = 1/2, g = tanh(atanh(0.8) + r * 0). c: 0.4, then 0.6; theta 0.5 fires the second.
    threshold = torch.tensor([0.5], dtype=torch.float64)
    state = EgruState(row(0.0), row(0.0))
    trajectory = []
    for _ in range(3):
        state = egru_step(row(0.0, 0.0, math.atanh(0.8)), row(0.0, 0.0, 0.0), threshold, state)
        trajectory.append((round(state.cell.item(), 6), round(state.events.item(), 6)))
    # After the event of 0.6 the cell holds 0.1; then 0.05 + 0.4.
    assert trajectory == [(0.4, 0.0), (0.1, 0.6), (0.45, 0.0)]


def test_egru_gates_by_hand():
    # z = 0.75 keeps three quarters; r = 0.25 takes a quarter of the recurrent candidate.
    state = EgruState(row(0.4), row(0.0))
    drive = row(logit(0.75), 0.0, 0.1)
    back = row(0.0, logit(0.25), 0.8)
    after = egru_step(drive, back, torch.tensor([9.0]).double(), state)
    assert after.cell.item() == pytest.approx(0.75 * 0.4 + 0.25 * math.tanh(0.1 + 0.25 * 0.8))


def test_adaptive_neuron_by_hand():
    # alpha 1/2, beta 1/2, a 1/4, b 1, current 3:
    # w = 0; u = 1.5, fires.  w = 3/8 + 1; u = (0.5 + 3 - 1.375) / 2 = 1.0625, fires.
    # w = 0.6875 + 0.265625 + 1; u = (0.0625 + 3 - 1.953125) / 2 = 0.5546875, silent.
    half = torch.tensor([0.5], dtype=torch.float64)
    parameters = AdaptiveParameters(half, half, half / 2, 2 * half)
    state = AdaptiveState(row(0.0), row(0.0), row(0.0))
    trajectory = []
    for _ in range(3):
        state = adaptive_step(row(3.0), parameters, state)
        trajectory.append(tuple(part.item() for part in state))
    assert trajectory == [(0.0, 1.5, 1.0), (1.375, 1.0625, 1.0), (1.953125, 0.5546875, 0.0)]


def test_a_constant_current_below_threshold_settles_where_the_equations_say():
    # Fixed point without spikes: w = a u / (1 - beta), u = I - w.
    alpha, beta, a = (torch.tensor([v], dtype=torch.float64) for v in (0.9, 0.95, 0.02))
    parameters = AdaptiveParameters(alpha, beta, a, torch.ones(1).double())
    state = AdaptiveState(row(0.0), row(0.0), row(0.0))
    for _ in range(2000):
        state = adaptive_step(row(0.8), parameters, state)
    assert state.membrane_potential.item() == pytest.approx(0.8 / (1 + 0.02 / 0.05), rel=1e-9)


def test_delta_tells_a_change_once_it_exceeds_the_threshold():
    told, heard = torch.zeros(1), []
    for value in (0.05, 0.12, 0.2, 0.23, 0.1, -0.5):
        told = tell(torch.tensor([value]), told, 0.1)
        heard.append(round(told.item(), 6))
    assert heard == [0.0, 0.12, 0.12, 0.23, 0.1, -0.5]


def test_delta_gru_by_hand():
    # r = u = 1/2, candidate tanh(atanh(0.6) + r * 0.0): h = 0.3, then 0.45, then 0.525.
    state = DeltaGruState(row(0.0), row(0.0))
    trajectory = []
    for _ in range(3):
        state = delta_gru_step(row(0.0, 0.0, math.atanh(0.6)), row(0.0, 0.0, 0.0), 0.2, state)
        trajectory.append((round(state.hidden.item(), 6), round(state.told.item(), 6)))
    assert trajectory == [(0.3, 0.3), (0.45, 0.3), (0.525, 0.525)]


def test_a_delta_gru_that_tells_everything_is_a_gru():
    torch.manual_seed(0)
    config = DeltaGruConfig(
        model="deltagru",
        hidden_size=7,
        num_layers=1,
        dropout=0.0,
        delta_threshold=0.0,
        input_delta_threshold=0.0,
    )
    network = build_network(config, 4, 3).eval()
    layer = network.layers[0]
    gru = torch.nn.GRU(4, 7)
    weight, bias = layer.norm.folded(layer.input_map.weight)
    with torch.no_grad():
        for parameter in gru.parameters():
            parameter.zero_()
        # torch's gates are r, z, n with h = (1 - z) n + z h: our u is 1 - z.
        sign = torch.tensor([1.0, -1.0, 1.0]).repeat_interleave(7)
        gru.weight_ih_l0.copy_(weight * sign.unsqueeze(1))
        gru.bias_ih_l0.copy_(bias * sign)
        gru.weight_hh_l0.copy_(layer.recurrent_weight * sign.unsqueeze(1))
        x = torch.randn(15, 2, 4)
        output = network(x, torch.tensor([15, 15]))
        expected, _ = gru(x)
    told = output.site_outputs[1].cumsum(0)
    torch.testing.assert_close(told, expected, rtol=1e-5, atol=1e-6)


def test_surrogate_gradients_are_the_closed_forms():
    x = torch.tensor([-2.0, -0.4, 0.0, 0.25, 0.5, 0.6, 3.0], requires_grad=True)
    fired = boxcar_step(x)
    assert fired.tolist() == [0, 0, 0, 1, 1, 1, 1]
    fired.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 0, 0]
    x.grad = None
    triangle_step(x, 0.7).sum().backward()
    expected = [0.7 * max(0.0, 1 - abs(v)) for v in x.tolist()]
    torch.testing.assert_close(x.grad, torch.tensor(expected))


@pytest.mark.parametrize("model", ["deltagru", "egru", "radlif"])
def test_the_recurrent_weights_gradient_is_autograds(model):
    """It is taken in one product after the sequence; autograd adds one up per frame."""
    torch.manual_seed(0)
    network = loud(build_network(ModelConfig(model=model, hidden_size=9, dropout=0.0), 5, 4))
    x, lengths = 2 * torch.randn(12, 3, 5), torch.tensor([12, 12, 12])
    network(x, lengths).log_probs_TBO[..., 1].sum().backward()
    layer = network.layers[0]
    ours = layer.recurrent_weight.grad.clone()
    network.zero_grad()

    class Plain:
        def __init__(self, weight, _):
            self.weight = weight

        def __call__(self, t, sent):
            return sent @ self.weight.T

    original, step_network._Feedback = step_network._Feedback, Plain
    try:
        network(x, lengths).log_probs_TBO[..., 1].sum().backward()
    finally:
        step_network._Feedback = original
    assert ours.abs().max() > 0
    torch.testing.assert_close(ours, layer.recurrent_weight.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [*CONTESTANTS, "ligru"])
def test_every_contestant_learns(model):
    torch.manual_seed(0)
    network = loud(build_network(ModelConfig(model=model, hidden_size=32, dropout=0.0), 6, 5))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    x, lengths = 2 * torch.randn(25, 4, 6), torch.tensor([25, 20, 25, 9])
    targets = torch.randint(5, (25, 4, 1))
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = -network(x, lengths).log_probs_TBO.gather(2, targets).mean()
        loss.backward()
        optimizer.step()
        network.after_step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(("model", "name"), [("egru", "threshold"), ("radlif", "alpha")])
def test_parameters_stay_within_their_bounds(model, name):
    network = build_network(ModelConfig(model=model, hidden_size=5), 3, 2)
    layer = network.layers[1]
    with torch.no_grad():
        layer.get_parameter(name).fill_(-7.0)
        layer.recurrent_weight.fill_(1.0)
    network.after_step()
    if model == "egru":
        assert layer.threshold.tolist() == [0.0] * 5
    else:
        assert layer.alpha.tolist() == pytest.approx([math.exp(-1 / 5)] * 5)
        assert torch.equal(layer.recurrent_weight, 1.0 - torch.eye(5))


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("model", CONTESTANTS)
def test_what_is_executed_by_events_is_what_is_audited(model, num_layers):
    """Frame by frame with products for events alone: the same scores, the same counts, exactly."""
    torch.manual_seed(3)
    config = ModelConfig(model=model, hidden_size=12, num_layers=num_layers, dropout=0.0)
    network = loud(build_network(config, 6, 5))
    x, lengths = 2.5 * torch.randn(30, 3, 6), torch.tensor([30, 17, 1])
    network(x, lengths)
    network.eval()
    with torch.inference_mode():
        output = network(x, lengths)
        shape = NetworkShape(network.config, 6, 5)
        activities = measure_activity(shape, output.site_outputs, lengths)
        for utterance, (length, activity) in enumerate(zip(lengths, activities, strict=True)):
            scores_TO, executed = run_by_events(network, x[: int(length), utterance])
            torch.testing.assert_close(
                scores_TO, output.log_probs_TBO[: int(length), utterance], rtol=1e-4, atol=1e-4
            )
            terms = {term.term: term for term in count_terms(shape, activity)}
            assert executed.keys() == terms.keys() - {"elementwise"}
            for name, counted in executed.items():
                expected = (terms[name].multiplications, terms[name].additions)
                assert (counted.multiplications, counted.additions) == expected, name
    layers = activities[0].emitted[1:]
    assert all(0 < sent < 30 * 12 for sent in layers), "sparse and alive, or nothing is shown"


def test_elementwise_terms_of_the_contestants_by_hand():
    # One frame of two layers of 10 on 4 features, 3 + 5 events of the layers.
    expected = {
        # r (U h), (1 - u) h, u c; v - v^ of all 24 values, W x + r (U h), 1 - u and the sum
        "deltagru": (60, 60 + 24),
        # one c - theta per event
        "egru": (60, 60 + 8),
        # beta w, a u, alpha (u - s), (1 - alpha) (I - w); two sums per spike
        "adlif": (80, 60 + 16),
        "radlif": (80, 60 + 16),
        "ligru": (40, 40),
    }
    for model, operations in expected.items():
        shape = NetworkShape(ModelConfig(model=model, hidden_size=10), 4, 3)
        term = count_terms(shape, Activity(1, (4, 3, 5), (0, 0)))[-1]
        assert (term.multiplications, term.additions) == operations, model


def test_a_projected_ligru_by_hand():
    # 2 frames: 3 x 4 products of the projection, 3 values into 2 x 10 drives, 10 back, 10 out to 5
    config = ModelConfig(model="ligru", hidden_size=10, num_layers=1, projection_size=3)
    shape = NetworkShape(config, 4, 5)
    terms = {t.term: t.multiplications for t in count_terms(shape, Activity(2, (6, 20), (10,)))}
    assert terms["projection"] == 2 * 4 * 3
    assert terms["feed_forward_1"] == 2 * 3 * 20
    assert terms["recurrent_1"] == 10 * 20  # nothing comes back in the first frame
    assert terms["output"] == 2 * 10 * 5


def test_binary_spikes_add_and_features_multiply():
    shape = NetworkShape(ModelConfig(model="radlif", hidden_size=10), 4, 3)
    terms = {t.term: t for t in count_terms(shape, Activity(2, (8, 6, 4), (5, 3)))}
    assert terms["feed_forward_1"].multiplications == 8 * 10
    assert (terms["recurrent_1"].multiplications, terms["recurrent_1"].additions) == (0, 5 * 9)
    assert (terms["output"].multiplications, terms["output"].additions) == (0, 4 * 3)


def test_egru_thresholds_are_drawn_around_their_mean():
    torch.manual_seed(0)
    config = EgruConfig(model="egru", hidden_size=4000, num_layers=1, event_threshold=0.2)
    threshold = build_network(config, 3, 2).layers[0].threshold
    assert threshold.mean().item() == pytest.approx(0.2, abs=0.01)
    assert 0 < threshold.min() < threshold.max() < 1


@pytest.mark.parametrize("model", [*CONTESTANTS, "ligru"])
def test_a_network_can_be_built_without_storage(model):
    """As it is before its weights are read, so that what a file claims costs nothing."""
    with torch.device("meta"):
        claimed = build_network(ModelConfig(model=model, hidden_size=9), 5, 4)
    real = build_network(ModelConfig(model=model, hidden_size=9), 5, 4)
    claimed.load_state_dict(real.state_dict(), assign=True)
    assert all(
        torch.equal(a, b) for a, b in zip(claimed.parameters(), real.parameters(), strict=True)
    )
