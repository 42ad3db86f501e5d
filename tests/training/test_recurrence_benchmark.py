"""The recurrence benchmark at toy sizes: every case runs and its rows mean what they say."""

import json

import pytest
import torch

from training import recurrence_benchmark as benchmark
from training import recurrence_memory, recurrence_peers
from training.recurrence_benchmark import RecurrenceBenchmark, RecurrenceBenchmarkConfig

TINY = RecurrenceBenchmarkConfig(
    cases=("large", "small", "gpu", "lif"),
    large=(3, 6),
    small=(2, 5),
    gpu=(3, 6),
    lif=(2, 4),
    num_features=5,
    hidden_size=20,
    num_outputs=7,
    num_threads=1,
    num_warmups=1,
    num_steps=2,
    num_reference_steps=1,
)


def test_every_case_has_its_peers_and_the_result_survives_json():
    before = torch.get_num_threads()
    result = benchmark.run_recurrence_benchmark(TINY)
    assert torch.get_num_threads() == before
    found = {(row.case, row.model, row.peer) for row in result.rows}
    optional = {("lif", "conventional", name) for name in result.skipped}
    optional |= {row for row in benchmark.REQUIRED_RATIOS if row[0] in result.skipped}
    assert found | optional >= set(benchmark.REQUIRED_RATIOS)
    for row in result.rows:
        assert row.our_time_s > 0
        assert row.peer_time_s > 0
        if row.required_ratio is not None:
            assert row.is_met == (row.ratio >= row.required_ratio)
    assert RecurrenceBenchmark.model_validate(json.loads(result.model_dump_json())) == result


def test_turns_are_taken_and_warmups_not_counted():
    calls = []
    steps = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    times = benchmark.measure_in_turns(steps, num_warmups=1, num_steps=3)
    assert calls == list("ab" * 4)
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}


@pytest.mark.parametrize("name", ["v1", "v2", "conventional"])
def test_tuned_networks_fire_as_often_as_asked(name):
    torch.manual_seed(0)
    x = torch.randn(40, 4, 10)
    network = recurrence_peers.spiking_network(name, (10, 60, 5), 2, "auto")
    recurrence_peers.tune_densities(network, x, 0.1)
    assert recurrence_peers.spike_densities(network, x) == pytest.approx([0.1] * 3, abs=0.03)


def test_a_reference_step_computes_what_the_fused_one_does():
    torch.manual_seed(0)
    x, lengths = torch.randn(6, 2, 10), torch.tensor([6, 4])
    network = recurrence_peers.spiking_network("v2", (10, 30, 5), 1, "auto")
    fused = network(x, lengths)
    recurrence_peers.set_backend(network, "reference")
    reference = network(x, lengths)
    torch.testing.assert_close(fused.log_probs_TBO, reference.log_probs_TBO, rtol=1e-3, atol=1e-3)


def test_memory_is_measured_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(recurrence_memory, "MEMORY_MODELS", ("v2",))
    (row,) = recurrence_memory.measure_memory((10, 64, 20), 1, 8, (2000,), 1)
    # F, C, I, Y, both drives and their gradients of 2000 x 8 x 64 floats are 33 MB.
    assert 25 < row.peak_mb < 200
