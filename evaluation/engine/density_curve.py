"""Time per frame against spike density, beside dense networks of the same size."""

import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from evaluation.engine.description import Precision
from evaluation.engine.engine import Engine, Stream
from evaluation.engine.forced_density import forced_engine, forced_frames, forced_stream
from evaluation.engine.peers import Step, torch_step
from evaluation.multiplications import NetworkShape, dense_cost
from featurize.stage import TypedConfig
from training.models.model_config import ModelName

DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0)

DENSE_KINDS: tuple[ModelName, ...] = ("gru", "lstm")
NUM_WARMING = 5

Frames = NDArray[np.float32]


class CurvePoint(TypedConfig):
    """The engine at one density."""

    density: float = Field(description="Measured share of non-zero outputs, all sites.")
    multiplications: float = Field(description="Executed per frame, matrix terms.")
    weight_kib: float = Field(description="Weights read per frame, float32, KiB.")
    float_us: float = Field(description="Median time per frame, float32.")
    int8_us: float = Field(description="Median time per frame, 8-bit weights.")


class DensityCurve(TypedConfig):
    """Time against density for one size of network."""

    num_features: int = Field(description="F.")
    hidden_size: int = Field(description="H.")
    num_layers: int = Field(description="L.")
    num_outputs: int = Field(description="O.")
    points: tuple[CurvePoint, ...] = Field(description="By rising density.")
    dense_us: dict[str, float] = Field(description="Median time per frame of dense networks.")
    dense_multiplications: dict[str, float] = Field(description="Their products per frame.")

    def crossover(self, peer: str, times: Sequence[float]) -> float | None:
        """Density at which the engine takes as long as a peer, between measured points.

        None where it is faster at every density measured, 0 where it is slower at every one.
        """
        limit = self.dense_us[peer]
        if times[0] >= limit:
            return 0.0
        for (a, b), (before, after) in zip(
            itertools.pairwise(self.points),
            itertools.pairwise(times),
            strict=True,
        ):
            if after >= limit:
                share = (limit - before) / (after - before)
                return a.density + share * (b.density - a.density)
        return None


def time_steps(
    steps: Mapping[str, Step], frames: Mapping[str, Sequence[Frames]], num_rounds: int
) -> dict[str, list[float]]:
    """Microseconds per frame, one value per round; all take turns within a round.

    Args:
        steps: by name.
        frames: frames of one round, each (1, F), by the same names.
        num_rounds: rounds; one more comes first and is not measured, and every turn begins
            with a few frames that are not: each finds its weights where a lone process has them.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(num_rounds + 1):
        for name, step in steps.items():
            chosen = frames[name]
            for frame in chosen[:NUM_WARMING]:
                step(frame)
            started = time.perf_counter()
            for frame in chosen:
                step(frame)
            elapsed = time.perf_counter() - started
            if number:
                times[name].append(1e6 * elapsed / len(chosen))
    return times


def curve_beside_torch(shape: NetworkShape) -> DensityCurve:
    """A short measurement beside PyTorch's GRU and LSTM of the same size, on one thread."""
    size = (shape.num_features, shape.hidden_size, shape.num_layers, shape.num_outputs)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measure_curve(
            size,
            {f"torch nn.{kind.upper()}": torch_step(kind, *size) for kind in DENSE_KINDS},
            {f"torch nn.{kind.upper()}": dense_cost(shape, kind)[0] for kind in DENSE_KINDS},
            frames_per_round=20,
            num_rounds=5,
        )
    finally:
        torch.set_num_threads(threads)


def measure_curve(
    size: tuple[int, int, int, int],
    dense: Mapping[str, Step],
    dense_multiplications: Mapping[str, float],
    *,
    frames_per_round: int,
    num_rounds: int,
) -> DensityCurve:
    """Time the engine at every density of ``DENSITIES``, in turns with the dense networks.

    Args:
        size: F, H, L, O.
        dense: peers by name, of the same size.
        dense_multiplications: their products per frame.
        frames_per_round: frames each advances before the next takes its turn.
        num_rounds: measured rounds.
    """
    num_features = size[0]
    noise = np.random.default_rng(2).standard_normal((frames_per_round, 1, num_features))
    steps: dict[str, Step] = dict(dense)
    frames: dict[str, Sequence[Frames]] = {name: list(noise.astype(np.float32)) for name in dense}
    streams: dict[str, Stream] = {}
    kinds: tuple[Precision, ...] = ("float32", "int8")
    for precision in kinds:
        weights = forced_engine(*size, 1.0, precision).arrays["weights"]
        for density in DENSITIES:
            name = f"{precision} {density}"
            engine = Engine(forced_engine(*size, density, precision, weights))
            streams[name] = forced_stream(engine)
            steps[name] = partial(engine.advance, stream=streams[name])
            frames[name] = [forced_frames(num_features, density)] * frames_per_round
    times = time_steps(steps, frames, num_rounds)
    median = {name: statistics.median(values) for name, values in times.items()}
    points = []
    for density in DENSITIES:
        executed = streams[f"float32 {density}"].executed
        neurons = sum(executed.description.site_sizes) * executed.num_frames
        points.append(
            CurvePoint(
                density=sum(executed.emitted) / neurons,
                multiplications=executed.multiplications / executed.num_frames,
                weight_kib=executed.weight_bytes / executed.num_frames / 1024,
                float_us=median[f"float32 {density}"],
                int8_us=median[f"int8 {density}"],
            )
        )
    return DensityCurve(
        num_features=size[0],
        hidden_size=size[1],
        num_layers=size[2],
        num_outputs=size[3],
        points=tuple(points),
        dense_us={name: median[name] for name in dense},
        dense_multiplications=dict(dense_multiplications),
    )
