from dataclasses import replace

import pytest
import torch

from evaluation.multiplications import as_published, dense_cost, mean_nonzeros, measure_activity
from training.models.build import build_network
from training.models.counting import (
    Activity,
    NetworkShape,
    audited,
    closed_form,
    count_terms,
    dense_activity,
)
from training.models.model_config import ModelConfig

MODELS = ("conventional", "v1", "v2", "gru", "lstm")
F, H, O = 40, 550, 1000  # noqa: E741


def shape(model, num_layers=2, num_bits=6, sizes=(F, H, O)):
    config = ModelConfig(
        model=model,
        num_layers=num_layers,
        hidden_size=sizes[1],
        num_bits=num_bits,
        threshold=0 if num_bits == 1 else 3,
    )
    return NetworkShape(config, sizes[0], sizes[2])


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gru", 3 * F * H + 3 * H * H + H * O + 6 * H * H),
        ("lstm", 4 * F * H + 4 * H * H + H * O + 8 * H * H),
        ("conventional", 10 * H + 50 * H + 70 * O),
        ("v1", 2 * 10 * H + 2 * 50 * H + 70 * O),
        ("v2", 2 * 10 * H + 4 * 50 * H + 2 * 70 * H + 70 * O),
    ],
)
def test_audited_column_of_the_design(model, expected):
    means = (10, 50, 70) if model in ("conventional", "v1", "v2") else (F, H, H)
    assert closed_form(shape(model), means) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gru", 3 * F * H + 3 * H * H + H * O + 6 * H * H + 24 * H),
        ("lstm", 4 * F * H + 4 * H * H + H * O + 8 * H * H + 24 * H),
        ("conventional", 10 * H + 50 * H + 70 * O + 12 * H),
        ("v1", 4 * 10 * H + 4 * 50 * H + 70 * O + 16 * H),
        ("v2", 4 * 10 * H + 4 * 50 * H + 70 * O + 16 * H),
    ],
)
def test_published_column_of_the_design(model, expected):
    means = (10, 50, 70) if model in ("conventional", "v1", "v2") else (F, H, H)
    assert as_published(shape(model), means) == expected


@pytest.mark.parametrize("model", ["conventional", "v1", "v2", "ligru"])
def test_a_projection_adds_its_products_to_the_published_column(model):
    plain, means = shape(model), (10, 50, 70)
    projected = replace(plain, config=plain.config.model_copy(update={"projection_size": 16}))
    assert as_published(projected, means) == as_published(plain, means) + 16 * F


def test_three_layers_of_v2():
    n0, n1, n2, n3 = 5, 11, 13, 17
    expected = 2 * H * (n0 + n1 + n2) + 2 * H * (n1 + n2 + n3) + n3 * O
    assert closed_form(shape("v2", num_layers=3), (n0, n1, n2, n3)) == expected


def run_network(model, num_bits=6, num_layers=2, seed=0):
    """A small random network on padded utterances; returns it with its outputs."""
    torch.manual_seed(seed)
    config = ModelConfig(
        model=model,
        hidden_size=8,
        num_layers=num_layers,
        num_bits=num_bits,
        threshold=0 if num_bits < 3 else 3,
    )
    network = build_network(config, 5, 4).train()
    x = 2 * torch.randn(12, 3, 5)
    lengths = torch.tensor([12, 7, 1])
    network(x, lengths)
    network.after_step()
    network.eval()
    with torch.inference_mode():
        output = network(x, lengths)
    return network, x, lengths, output


def brute_force(network, output, lengths, utterance):
    """Count products one by one: frame, matrix, row, column; skip columns whose input is 0."""
    model = network.config.model
    rows = {"conventional": 1, "v1": 2, "v2": 2, "gru": 3, "lstm": 4}[model]
    spiking = network.config.is_event_based
    counts = {}

    def multiply(term, vector, num_rows):
        counts.setdefault(term, 0)
        for value in vector:
            if not spiking or float(value) != 0.0:
                for _ in range(num_rows):
                    counts[term] += 1

    sites = [site[:, utterance] for site in output.site_outputs]
    hidden = network.config.hidden_size
    for t in range(int(lengths[utterance])):
        for layer in range(network.config.num_layers):
            multiply(f"feed_forward_{layer + 1}", sites[layer][t], rows * hidden)
            if model in ("v2", "gru", "lstm"):
                own = sites[layer + 1]
                before = own[t - 1] if t else torch.zeros_like(own[0])
                multiply(f"recurrent_{layer + 1}", before, rows * hidden)
        multiply("output", sites[-1][t], network.num_outputs)
    return counts


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("model", MODELS)
def test_counts_equal_counting_one_by_one(model, num_layers):
    network, _, lengths, output = run_network(model, num_layers=num_layers)
    of_network = NetworkShape(network.config, 5, 4)
    activities = measure_activity(of_network, output.site_outputs, lengths)
    for utterance, activity in enumerate(activities):
        terms = count_terms(of_network, activity)
        counted = {t.term: t.multiplications for t in terms if t.term != "elementwise"}
        assert counted == brute_force(network, output, lengths, utterance)
        assert audited(terms) == sum(counted.values())
        assert activity.num_frames == int(lengths[utterance])


def test_spikes_are_sparse_in_the_networks_counted_here():
    # Otherwise the comparison above would not tell a dense count from a sparse one.
    network, _, lengths, output = run_network("v2")
    of_network = NetworkShape(network.config, 5, 4)
    whole = measure_activity(of_network, output.site_outputs, lengths)[0]
    assert 0 < whole.emitted[1] < 12 * 8
    assert 0 < whole.emitted[2] < 12 * 8


@pytest.mark.parametrize("model", MODELS)
def test_padding_is_never_counted(model):
    network, x, lengths, output = run_network(model)
    of_network = NetworkShape(network.config, 5, 4)
    batched = measure_activity(of_network, output.site_outputs, lengths)
    for utterance, length in enumerate(lengths.tolist()):
        with torch.inference_mode():
            alone = network(x[:length, utterance : utterance + 1], torch.tensor([length]))
        (expected,) = measure_activity(of_network, alone.site_outputs, torch.tensor([length]))
        assert batched[utterance] == expected


def test_padding_is_masked_even_where_a_site_leaks():
    sites = [torch.ones(4, 2, 3), torch.ones(4, 2, 5), torch.ones(4, 2, 5)]
    of_network = shape("v2", sizes=(3, 5, 2))
    long, empty = measure_activity(of_network, sites, torch.tensor([2, 0]))
    assert long == Activity(2, (6, 10, 10), (5, 5))
    assert empty == Activity(0, (0, 0, 0), (0, 0))


def test_the_last_frames_output_is_not_fed_back():
    layer = torch.zeros(3, 1, 5)
    layer[0, 0, :2] = 1.0
    layer[2, 0, :] = 1.0
    of_network = shape("v2", 1, sizes=(3, 5, 2))
    (activity,) = measure_activity(of_network, [torch.ones(3, 1, 3), layer], torch.tensor([3]))
    assert activity.emitted == (9, 7)
    assert activity.fed_back == (2,)
    by_term = {term.term: term.multiplications for term in count_terms(of_network, activity)}
    assert by_term["recurrent_1"] == 2 * 10
    # The closed form charges the last frame too.
    excess = 3 * closed_form(of_network, mean_nonzeros(activity)) - audited(
        count_terms(of_network, activity)
    )
    assert excess == pytest.approx(5 * 10)


def test_single_bit_spikes_cost_additions_only():
    activity = Activity(10, (100, 200, 300), (180, 270))
    for model in ("conventional", "v1", "v2"):
        binary = count_terms(shape(model, num_bits=1), activity)
        multi = count_terms(shape(model), activity)
        assert audited(binary) == 0
        assert closed_form(shape(model, num_bits=1), (10, 20, 30)) == 0
        assert [t.additions for t in binary[:-1]] == [t.multiplications for t in multi[:-1]]
        assert all(t.additions > 0 for t in binary)


def test_binary_network_is_counted_by_its_spikes():
    network, _, lengths, output = run_network("v2", num_bits=1)
    of_network = NetworkShape(network.config, 5, 4)
    terms = count_terms(of_network, measure_activity(of_network, output.site_outputs, lengths)[0])
    expected = brute_force(network, output, lengths, 0)
    assert {t.term: t.additions for t in terms[:-1]} == expected
    assert sum(expected.values()) > 0


@pytest.mark.parametrize(
    ("model", "products", "sums"),
    [
        # Per frame with F = 40, H = 550, L = 2 and 10 + 20 + 30 spikes.
        ("conventional", 2 * H + (F + 2 * H) + 60, 2 * H + (F + 2 * H) + 60),
        ("v1", 4 * H + (F + 2 * H) + 60, 4 * H + (F + 2 * H) + 60),
        ("v2", 4 * H + (F + 2 * H) + 60, 4 * H + (F + 2 * H) + 60),
        ("gru", 6 * H, 6 * H),
        ("lstm", 6 * H, 2 * H),
    ],
)
def test_elementwise_terms_by_hand(model, products, sums):
    activity = Activity(1, (10, 20, 30), (0, 0))
    if model in ("gru", "lstm"):
        activity = dense_activity(shape(model), 1)
    term = count_terms(shape(model), activity)[-1]
    assert (term.term, term.multiplications, term.additions) == ("elementwise", products, sums)


@pytest.mark.parametrize(("num_bits", "quantiser"), [(1, 0), (32, 0), (6, F + 2 * H + 60)])
def test_the_quantiser_multiplies_only_between_one_and_full_bits(num_bits, quantiser):
    term = count_terms(shape("v1", num_bits=num_bits), Activity(1, (10, 20, 30), (0, 0)))[-1]
    assert term.multiplications == 4 * H + quantiser


def test_dense_reference_is_the_dense_model_itself():
    for model in ("gru", "lstm"):
        frames = 7
        terms = count_terms(shape(model), dense_activity(shape(model), frames))
        assert dense_cost(shape("v2"), model)[0] == audited(terms) / frames


def test_activities_add_up_over_utterances():
    _, _, lengths, output = run_network("v2")
    of_network = shape("v2", sizes=(5, 8, 4))
    one, two, three = measure_activity(of_network, output.site_outputs, lengths)
    together = count_terms(of_network, one + two + three)
    apart = [count_terms(of_network, a) for a in (one, two, three)]
    for term, parts in zip(together, zip(*apart, strict=True), strict=True):
        assert term.multiplications == sum(part.multiplications for part in parts)
        assert term.additions == sum(part.additions for part in parts)
