"""Training towards a budget: prices against the audited count, the controller, and a training."""

import math

import pytest
import torch

from training.budget import BudgetController
from training.checkpoint import CheckpointState
from training.manifest import EpochMetrics
from training.models.build import build_network
from training.models.counting import NetworkShape, closed_form
from training.models.model_config import ModelConfig
from training.train_config import (
    BudgetConfig,
    CurriculumStage,
    DensityConfig,
    QuantizationScheduleConfig,
    TrainConfig,
)

LENGTHS = torch.tensor([2])


def epoch(number, error=0.5, cost=None, **changes):
    """An epoch, in which the network of ``controller`` cost so much a second."""
    return EpochMetrics(
        epoch=number,
        train_loss=1.0,
        dev_loss=1.0,
        dev_error=error,
        learning_rate=1e-3,
        frames_per_s=1.0,
        num_frames=1,
        num_utterances=1,
        seconds=1.0,
        **{
            "spike_density": () if cost is None else ((cost / 10.0 - 5.0) / (2.0 + 3.0),) * 2,
            "multiplications_per_s": cost,
        }
        | changes,
    )


def controller(weight_density=None, **changes):
    config = BudgetConfig(
        **{
            "multiplications_per_s": 100.0,
            "first_epoch": 1,
            "approach_epochs": 2,
            "integral_gain": 0.1,
            "proportional_gain": 0.5,
        }
        | changes
    )
    # one layer of v3 of a single neuron: 5 products of a projection, 2 of each encoder spike, and
    # 2 + 1 of each spike of the layer
    shape = NetworkShape(
        ModelConfig(
            model="v3",
            num_layers=1,
            hidden_size=1,
            projection_size=1,
            weight_density=weight_density,
        ),
        5,
        1,
    )
    return BudgetController(config, shape, frames_per_s=10.0)


def test_the_aim_falls_geometrically_from_the_first_cost_to_the_budget():
    budget = controller()
    budget.resume([epoch(0, cost=1600.0)])
    assert [budget.aim(t) for t in (1.0, 1.5, 2.0, 3.0, 9.0)] == pytest.approx(
        [1600, 800, 400, 100, 100]
    )
    # a network that begins below the budget is not made dearer
    budget.resume([epoch(0, cost=50.0)])
    assert budget.aim(1.0) == 100.0


def test_begun_with_the_first_step_the_aim_is_the_budget_at_once():
    budget = controller(first_epoch=0)
    for epochs in ([], [epoch(0, cost=1600.0)]):
        budget.resume(epochs)
        assert budget.aim(0.0) == budget.aim(1.0) == 100.0


def test_hand_computed_cost_price_and_gradient():
    budget = controller(approach_epochs=0.5)
    budget.resume([epoch(0, cost=1600.0)])
    # two frames: the encoder fires 3 of 4, the layer 2 of 4: 5 + 2 * 1.5 + 3 * 1 = 11 a frame
    encoder = torch.tensor([1.0, -2.0, 0.0, 1.0], dtype=torch.float64).reshape(2, 1, 2)
    layer = torch.tensor([3.0, 0.0, 0.0, 1.0], dtype=torch.float64).reshape(2, 1, 2)
    encoder.requires_grad_()
    layer.requires_grad_()
    assert budget.cost_per_s([1.5, 1.0]) == 110.0
    budget.penalty([encoder, layer], LENGTHS, 2.0).backward()
    error = math.log(110 / 100)
    assert budget.integral == pytest.approx(0.1 * error)
    price = 0.6 * error
    # d log S / dy = 2 sign(y) / sum |y| - 2 y / sum y^2, times the layer's share of the cost
    share = 3.0 / 11
    expected = [2 / 4 - 2 * 3 / 10, 0.0, 0.0, 2 / 4 - 2 * 1 / 10]
    assert layer.grad.flatten().tolist() == pytest.approx([price * share * e for e in expected])
    share = 3.0 / 11
    expected = [2 / 4 - 2 * 1 / 6, -2 / 4 + 2 * 2 / 6, 0.0, 2 / 4 - 2 * 1 / 6]
    assert encoder.grad.flatten().tolist() == pytest.approx([price * share * e for e in expected])


def test_a_pruned_network_is_priced_by_the_weights_that_are_left():
    """At the same distance from its budget the gradient is the same: mu d log C."""
    gradients, starts = [], []
    for density in (None, 0.25):
        kept = density or 1.0
        budget = controller(density, multiplications_per_s=100.0 * kept, approach_epochs=0.5)
        budget.resume([epoch(0, cost=1600.0)])
        starts.append(budget.starting_cost / kept)
        layer = torch.tensor([3.0, 0.0, 0.0, 1.0], requires_grad=True)
        encoder = torch.tensor([1.0, -2.0, 0.0, 1.0])
        sites = [encoder.reshape(2, 1, 2), layer.reshape(2, 1, 2)]
        budget.penalty(sites, LENGTHS, 2.0).backward()
        gradients.append(layer.grad)
    assert starts[0] == pytest.approx(starts[1])
    assert float(gradients[0].abs().sum()) > 0.001
    torch.testing.assert_close(gradients[1], gradients[0])


def test_nothing_is_priced_before_the_first_epoch_or_once_the_price_is_gone():
    outputs = [torch.ones(2, 1, 2), torch.ones(2, 1, 2, requires_grad=True)]
    budget = controller()
    assert budget.penalty(outputs, LENGTHS, 0.9).item() == 0.0
    assert budget.integral == 0.0
    budget = controller(multiplications_per_s=1e6)
    budget.resume([epoch(0, cost=1600.0)])
    penalty = budget.penalty(outputs, LENGTHS, 2.0)
    assert penalty.item() == 0.0
    assert budget.integral == 0.0


def test_the_integral_is_resumed_from_the_last_epoch():
    budget = controller()
    last = epoch(1, cost=400.0, price_integral=0.7, budget_excess=1.25)
    budget.resume([epoch(0, cost=1600.0), last])
    assert budget.integral == 0.7
    assert budget.aim(3.0) == pytest.approx(100.0 / 1.25)
    assert budget.starting_cost == pytest.approx(1600.0)


def test_the_best_epoch_is_within_the_budget_or_the_cheapest():
    def best(*epochs):
        return CheckpointState(epoch=2, learning_rate=1.0, epochs=epochs, sha256={}).best_epoch

    dear, cheap = {"is_affordable": False}, {"is_affordable": True}
    assert best(epoch(0, 0.3, 500.0, **dear), epoch(1, 0.5, 99.0, **cheap)) == 1
    assert best(epoch(0, 0.3, 500.0, **dear), epoch(1, 0.5, 300.0, **dear)) == 1
    assert best(epoch(0, 0.5, 90.0, **cheap), epoch(1, 0.4, 99.0, **cheap)) == 1
    # A network that learnt on, a little dearer, is not given up for what it was at first.
    first, last = epoch(0, 0.6, 103.0, **dear), epoch(1, 0.3, 107.0, **dear)
    assert best(first, last) == 1
    assert best(epoch(0, 0.3), epoch(1, 0.5)) == 0


def test_what_dev_costs_more_than_training_is_taken_off_the_aim():
    budget = controller()
    assert budget.measured_excess(500.0) == 1.0, "nothing is known before the first step"
    for _ in range(400):  # 5 + 2 / 2 products a frame at 10 frames a second, then a spike of each
        budget.penalty([torch.ones(2, 1, 1), torch.zeros(2, 1, 1)], LENGTHS, 2.0)
    assert budget.measured_excess(77.0) == pytest.approx(1.1, rel=1e-3)
    assert budget.measured_excess(7000.0) == 1.5
    budget.resume([epoch(0, cost=70.0), epoch(1, cost=77.0, budget_excess=1.1)])
    assert budget.aim(3.0) == pytest.approx(100.0 / 1.1)
    assert budget.measured_excess(77.0) == 1.1, "nothing new is known after resuming"


def test_a_network_is_led_to_its_budget():
    """A small v2 that must halve its cost while it learns: it ends within a few percent."""
    torch.manual_seed(0)
    config = ModelConfig(model="v2", hidden_size=48, dropout=0.0, max_range=2.0)
    network = build_network(config, 8, 6)
    x, lengths = torch.randn(40, 8, 8), torch.full((8,), 40)
    targets = (x[..., :6] + x.roll(1, 0)[..., :6]).argmax(2)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    shape = NetworkShape(config, 8, 6)

    def densities(output):
        return tuple(
            torch.count_nonzero(site).item() / site.numel() for site in output.site_outputs
        )

    def cost(output):
        shares = zip(densities(output), shape.site_sizes, strict=True)
        return 100.0 * closed_form(shape, [share * size for share, size in shares])

    start = cost(network(x, lengths))
    budget = BudgetController(
        BudgetConfig(
            multiplications_per_s=start / 2,
            first_epoch=1,
            approach_epochs=1,
            integral_gain=0.05,
            proportional_gain=4.0,
        ),
        shape,
        100.0,
    )
    losses, costs = [], []
    for step in range(200):
        optimizer.zero_grad()
        output = network(x, lengths)
        scores = output.log_probs_TBO.flatten(0, 1)
        loss = torch.nn.functional.nll_loss(scores, targets.flatten())
        epochs_done = step / 50
        if step == 50:
            budget.resume([epoch(0, spike_density=densities(output))])
        (loss + budget.penalty(output.site_outputs, lengths, epochs_done)).backward()
        optimizer.step()
        network.after_step()
        losses.append(loss.item())
        costs.append(cost(output))
    assert costs[49] > 0.75 * start
    assert costs[-1] < 1.1 * start / 2
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"density": DensityConfig(weight=1.0)}, "leave one of them empty"),
        (
            {"quantization_schedule": QuantizationScheduleConfig(unquantized_epochs=3)},
            "budget.first_epoch=2 comes before epoch 3",
        ),
        ({"curriculum": (CurriculumStage(num_epochs=3),)}, "reach beyond the 3 epochs"),
    ],
)
def test_a_schedule_that_cannot_work_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**{"budget": BudgetConfig(multiplications_per_s=1e6)} | changes)


def test_a_budget_is_not_part_of_what_determines_a_dense_model():
    config = TrainConfig(
        model=ModelConfig(model="gru"), budget=BudgetConfig(multiplications_per_s=1e6)
    )
    assert "budget" not in config.determining()
