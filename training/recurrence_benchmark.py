"""``spikeline bench recurrence``: our recurrences beside LSTM, GRU and other SNN libraries.

Every figure is the median of steps measured in turns (one step of each contestant per round,
after warm-up), in one process, with the same number of threads for all: whatever else the
machine does then falls on all alike. A ratio is the median over rounds of peer / ours.

Shape legend: T time, B batch, F input features, H neurons, O outputs.
"""

import logging
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from featurize.stage import TypedConfig, software_versions
from training import recurrence_peers as peers
from training.recurrence_memory import MemoryRow, measure_memory
from training.recurrence_peers import SpikingName, Step

logger = logging.getLogger(__name__)

CaseName = Literal["large", "small", "gpu", "lif", "scaling"]
SPIKING: tuple[SpikingName, ...] = ("v2", "v1", "conventional")

# (case, model, peer): how many times faster the project sets out to be.
REQUIRED_RATIOS: Mapping[tuple[str, str, str], float] = {
    ("large", "v2", "nn.LSTM"): 2.0,
    ("large", "v2", "nn.GRU"): 1.5,
    ("large", "v1", "nn.LSTM"): 4.0,
    ("large", "conventional", "nn.LSTM"): 5.0,
    ("small", "v2", "nn.LSTM"): 1.3,
    ("small", "v2", "reference"): 5.0,
    ("gpu", "v2", "nn.LSTM"): 1.0,
    ("gpu", "v1", "nn.LSTM"): 3.0,
    ("lif", "conventional", "snntorch"): 5.0,
    ("lif", "conventional", "spikingjelly"): 5.0,
}


class RecurrenceBenchmarkConfig(TypedConfig):
    """What to measure; the defaults are the paper's sizes."""

    cases: tuple[CaseName, ...] = Field(
        ("large", "small", "gpu", "lif", "scaling"), description="Comparisons to run."
    )
    large: tuple[int, int] = Field((64, 400), description="Batch and frames of the large case.")
    small: tuple[int, int] = Field((16, 200), description="Batch and frames of the small case.")
    gpu: tuple[int, int] = Field(
        (64, 800), description="Batch and frames of the GPU case, under autocast to bfloat16."
    )
    lif: tuple[int, int] = Field((64, 200), description="Batch and frames of the LIF case.")
    scaling_batch: int = Field(16, ge=1, description="Batch of the scaling case.")
    scaling_frames: tuple[int, ...] = Field(
        (750, 1500, 3000), description="Sequence lengths whose time and memory are compared."
    )
    num_features: int = Field(40, ge=1, description="Values per input frame.")
    hidden_size: int = Field(550, ge=1, description="Neurons per layer.")
    num_layers: int = Field(2, ge=1, description="Recurrent layers.")
    num_outputs: int = Field(1000, ge=1, description="Scores per frame.")
    num_threads: int = Field(2, ge=1, description="Compute threads of every contestant.")
    num_warmups: int = Field(2, ge=1, description="Unmeasured rounds.")
    num_steps: int = Field(10, ge=1, description="Measured rounds.")
    num_reference_steps: int = Field(
        3, ge=1, description="Measured rounds that include the slow reference path."
    )
    seed: int = Field(0, ge=0, description="Seed of weights and inputs.")

    @property
    def sizes(self) -> tuple[int, int, int]:
        """F, H, O."""
        return self.num_features, self.hidden_size, self.num_outputs


class BenchmarkRow(TypedConfig):
    """One of our models beside one peer."""

    case: str = Field(description="Comparison.")
    model: str = Field(description="Our model.")
    densities: str = Field(description="Where the spike densities come from: initial or trained.")
    spike_densities: tuple[float, ...] = Field(description="Non-zero spikes, encoder first.")
    peer: str = Field(description="What it is compared with.")
    batch_size: int = Field(description="B.")
    num_frames: int = Field(description="T.")
    our_time_s: float = Field(description="Median time of our step.")
    peer_time_s: float = Field(description="Median time of the peer's step.")
    ratio: float = Field(description="Median over rounds of peer's time / our time.")
    required_ratio: float | None = Field(description="What the project sets out for, if anything.")
    num_steps: int = Field(description="Measured rounds.")

    @property
    def is_met(self) -> bool | None:
        """Whether the ratio is what was asked for; None where nothing was."""
        return None if self.required_ratio is None else self.ratio >= self.required_ratio


class ScalingRow(TypedConfig):
    """Time of a v2 step against the sequence's length."""

    num_frames: int = Field(description="T.")
    batch_size: int = Field(description="B.")
    time_s: float = Field(description="Median time of a step.")
    time_per_frame_us: float = Field(description="The same per frame of the batch.")


class RecurrenceBenchmark(TypedConfig):
    """Everything the benchmark found."""

    config: RecurrenceBenchmarkConfig = Field(description="What was measured.")
    rows: tuple[BenchmarkRow, ...] = Field(description="Comparisons, in the order measured.")
    scaling: tuple[ScalingRow, ...] = Field(description="Time against length.")
    memory: tuple[MemoryRow, ...] = Field(description="Peak memory against length.")
    skipped: dict[str, str] = Field(description="Peers not measured, and why.")
    machine: str = Field(description="Processor and system.")
    versions: dict[str, str] = Field(description="Software.")


def measure_in_turns(
    steps: Mapping[str, Step], num_warmups: int, num_steps: int
) -> dict[str, list[float]]:
    """Seconds of every step in every round; contestants take turns within a round."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(num_warmups + num_steps):
        logger.info("round %d of %d", number + 1, num_warmups + num_steps)
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if number >= num_warmups:
                times[name].append(time.perf_counter() - start)
    return times


class _Contest:
    """One case: contestants by name, ours with their spike densities."""

    def __init__(self, case: str, batch_size: int, num_frames: int) -> None:
        self.case, self.batch_size, self.num_frames = case, batch_size, num_frames
        self.ours: dict[str, tuple[str, str, tuple[float, ...]]] = {}
        self.steps: dict[str, Step] = {}

    def add_ours(self, model: str, densities: str, measured: tuple[float, ...], step: Step) -> None:
        name = f"{model} {densities}"
        self.ours[name] = (model, densities, measured)
        self.steps[name] = step

    def rows(
        self, num_warmups: int, num_steps: int, only: tuple[str, ...] | None = None
    ) -> list[BenchmarkRow]:
        """Measure all (or ``only`` some) and compare each of ours with each peer."""
        steps = {name: step for name, step in self.steps.items() if only is None or name in only}
        times = measure_in_turns(steps, num_warmups, num_steps)
        return [
            self._row(ours, peer, times)
            for ours in times
            if ours in self.ours
            for peer in times
            if peer not in self.ours
        ]

    def _row(self, ours: str, peer: str, times: Mapping[str, list[float]]) -> BenchmarkRow:
        model, densities, measured = self.ours[ours]
        pairs = zip(times[peer], times[ours], strict=True)
        return BenchmarkRow(
            case=self.case,
            model=model,
            densities=densities,
            spike_densities=measured,
            peer=peer,
            batch_size=self.batch_size,
            num_frames=self.num_frames,
            our_time_s=statistics.median(times[ours]),
            peer_time_s=statistics.median(times[peer]),
            ratio=statistics.median(theirs / our for theirs, our in pairs),
            required_ratio=REQUIRED_RATIOS.get((self.case, model, peer)),
            num_steps=len(times[ours]),
        )


def _network_contest(
    case: CaseName, batch_size: int, num_frames: int, config: RecurrenceBenchmarkConfig
) -> _Contest:
    contest = _Contest(case, batch_size, num_frames)
    device = torch.device("cuda" if case == "gpu" else "cpu")
    torch.manual_seed(config.seed)
    x_TBF = torch.randn(num_frames, batch_size, config.num_features).to(device)
    targets_N = torch.randint(config.num_outputs, (num_frames * batch_size,)).to(device)
    lengths_B = torch.full((batch_size,), num_frames, device=device)
    # Whole sequences: what a neuron without a gate integrates grows with time.
    sample = x_TBF[:, : max(1, batch_size // 8)]
    names = SPIKING[:1] if case == "small" else SPIKING
    for name in names:
        for densities in ("initial", "trained"):
            network = peers.spiking_network(name, config.sizes, config.num_layers, "auto")
            network.to(device)
            measured = tuple(peers.spike_densities(network, sample))
            if densities == "trained":
                peers.tune_densities(network, sample, peers.TRAINED_DENSITY)
                measured = tuple(peers.spike_densities(network, sample))

            def scores(network: nn.Module = network) -> torch.Tensor:
                log_probs: torch.Tensor = network(x_TBF, lengths_B).log_probs_TBO
                return log_probs

            step = peers.training_step(network, scores, targets_N)
            contest.add_ours(name, densities, measured, step)
            if case == "small" and densities == "trained":
                contest.steps["reference"] = _reference_step(network, scores, targets_N)
    for peer, kind in (("nn.LSTM", nn.LSTM), ("nn.GRU", nn.GRU)):
        dense = peers.DenseSpeech(kind, config.sizes, config.num_layers).to(device)
        contest.steps[peer] = peers.training_step(dense, partial(dense, x_TBF), targets_N)
    if case == "gpu":
        contest.steps = {name: peers.on_gpu(step) for name, step in contest.steps.items()}
    return contest


def _reference_step(
    network: nn.Module, scores: Callable[[], torch.Tensor], targets_N: torch.Tensor
) -> Step:
    """The same network, weights and ranges, its recurrences run by the reference backend."""
    step = peers.training_step(network, scores, targets_N)

    def run() -> None:
        peers.set_backend(network, "reference")
        step()
        peers.set_backend(network, "auto")

    return run


def _measure_networks(
    case: CaseName, size: tuple[int, int], config: RecurrenceBenchmarkConfig
) -> list[BenchmarkRow]:
    contest = _network_contest(case, *size, config)
    fast = tuple(name for name in contest.steps if name != "reference")
    rows = contest.rows(config.num_warmups, config.num_steps, fast)
    if "reference" in contest.steps:
        rows += contest.rows(1, config.num_reference_steps, ("v2 trained", "reference"))
    return rows


def _measure_lif(config: RecurrenceBenchmarkConfig, skipped: dict[str, str]) -> list[BenchmarkRow]:
    batch_size, num_frames = config.lif
    contest = _Contest("lif", batch_size, num_frames)
    torch.manual_seed(config.seed)
    drive_TBH = torch.randn(num_frames, batch_size, config.hidden_size, requires_grad=True)
    contest.add_ours("conventional", "initial", (), peers.our_lif_step(drive_TBH))
    libraries = {
        "snntorch": peers.snntorch_lif_step,
        "spikingjelly": peers.spikingjelly_lif_step,
    }
    for name, build in libraries.items():
        try:
            contest.steps[name] = build(drive_TBH)
        except ImportError as error:
            skipped[name] = f"not installed ({error}); pip install 'spikeline[bench]'"
    return contest.rows(config.num_warmups, config.num_steps)


def _measure_scaling(config: RecurrenceBenchmarkConfig) -> list[ScalingRow]:
    rows = []
    for num_frames in config.scaling_frames:
        torch.manual_seed(config.seed)
        network = peers.spiking_network("v2", config.sizes, config.num_layers, "auto")
        x_TBF = torch.randn(num_frames, config.scaling_batch, config.num_features)
        lengths_B = torch.full((config.scaling_batch,), num_frames)
        targets_N = torch.randint(config.num_outputs, (num_frames * config.scaling_batch,))

        def scores(
            network: nn.Module = network,
            x_TBF: torch.Tensor = x_TBF,
            lengths_B: torch.Tensor = lengths_B,
        ) -> torch.Tensor:
            log_probs: torch.Tensor = network(x_TBF, lengths_B).log_probs_TBO
            return log_probs

        step = peers.training_step(network, scores, targets_N)
        times = measure_in_turns({"v2": step}, 1, config.num_reference_steps)["v2"]
        median = statistics.median(times)
        rows.append(
            ScalingRow(
                num_frames=num_frames,
                batch_size=config.scaling_batch,
                time_s=median,
                time_per_frame_us=1e6 * median / num_frames,
            )
        )
    return rows


def run_recurrence_benchmark(config: RecurrenceBenchmarkConfig) -> RecurrenceBenchmark:
    """Measure; takes some minutes at the default sizes.

    Args:
        config: cases and sizes. PyTorch's number of threads is set for the time of the call.

    Returns:
        A row per case and peer, with times, ratio and what was asked for.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(config.num_threads)
    skipped: dict[str, str] = {}
    rows: list[BenchmarkRow] = []
    scaling: list[ScalingRow] = []
    memory: list[MemoryRow] = []
    try:
        sizes: tuple[tuple[CaseName, tuple[int, int]], ...] = (
            ("large", config.large),
            ("small", config.small),
            ("gpu", config.gpu),
        )
        for case, size in sizes:
            if case == "gpu" and not torch.cuda.is_available():
                skipped["gpu"] = "no NVIDIA GPU here"
            elif case in config.cases:
                logger.info("measuring the %s networks", case)
                rows += _measure_networks(case, size, config)
        if "lif" in config.cases:
            logger.info("measuring plain LIF layers")
            rows += _measure_lif(config, skipped)
        if "scaling" in config.cases:
            logger.info("measuring time and memory against length")
            scaling = _measure_scaling(config)
            memory = measure_memory(
                config.sizes,
                config.num_layers,
                config.scaling_batch,
                config.scaling_frames,
                config.num_threads,
            )
    finally:
        torch.set_num_threads(before)
    return RecurrenceBenchmark(
        config=config,
        rows=tuple(rows),
        scaling=tuple(scaling),
        memory=tuple(memory),
        skipped=skipped,
        machine=f"{platform.processor() or platform.machine()}, {platform.system()}",
        versions=software_versions("torch", "numba", "numpy"),
    )
