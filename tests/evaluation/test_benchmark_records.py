"""The recurrence benchmark's page says which ratios were asked for and met."""

from evaluation.benchmark_records import recurrence_page
from training.recurrence_benchmark import (
    BenchmarkRow,
    RecurrenceBenchmark,
    RecurrenceBenchmarkConfig,
    ScalingRow,
)
from training.recurrence_memory import MemoryRow


def row(ratio, required):
    return BenchmarkRow(
        case="large",
        model="v2",
        densities="trained",
        spike_densities=(0.1, 0.1, 0.1),
        peer="nn.LSTM",
        batch_size=64,
        num_frames=400,
        our_time_s=2.0,
        peer_time_s=2.0 * ratio,
        ratio=ratio,
        required_ratio=required,
        num_steps=10,
    )


def test_page():
    result = RecurrenceBenchmark(
        config=RecurrenceBenchmarkConfig(),
        rows=(row(2.25, 2.0), row(1.5, 2.0), row(3.0, None)),
        scaling=(ScalingRow(num_frames=750, batch_size=16, time_s=1.5, time_per_frame_us=2000.0),),
        memory=(
            MemoryRow(model="v2", num_frames=750, batch_size=16, peak_mb=459.0),
            MemoryRow(model="nn.LSTM", num_frames=750, batch_size=16, peak_mb=598.0),
        ),
        skipped={"gpu": "no NVIDIA GPU here"},
        machine="here",
        versions={"torch": "2.11.0"},
    )
    page = recurrence_page(result, ["/bin/x", "bench", "recurrence"])
    assert "spikeline bench recurrence\n" in page
    start = "| large, B=64, T=400 | v2 | 10% / 10% / 10% | nn.LSTM | 2,000 |"
    assert f"{start} 4,500 | 2.25 | 2: met |" in page
    assert f"{start} 3,000 | 1.50 | 2: not met |" in page
    assert f"{start} 6,000 | 3.00 |  |" in page
    assert "| 750 | 1.50 | 2,000 |" in page
    assert "| nn.LSTM | 598 |" in page
    assert "not measured: gpu: no NVIDIA GPU here" in page
