"""An engine whose neurons fire as often as one chooses, to time its step at any density.

Every neuron is driven by a constant current of ``p`` levels a frame with a threshold of one level,
so that it fires in a share ``p`` of the frames. Residues start at random, so that the neurons take
turns and hardly one fires in two frames running: no row of weights is still in the cache by
chance. Weights are there, and read, but too small to change anything.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.engine.description import EngineDescription, Precision, SymbolTable
from evaluation.engine.engine import Engine, Stream
from evaluation.engine.engine_file import EngineData, check, expected_arrays

_LEVELS_PER_UNIT = 31.0
_TINY = 1e-20
_SHUT = -80.0  # keeps a gate shut


class EngineSize(NamedTuple):
    """F, H, L, O."""

    num_features: int
    hidden_size: int
    num_layers: int
    num_outputs: int


class ForcedStep(NamedTuple):
    """A step at one density, and the stream that counts what it costs."""

    step: Callable[[], object]
    stream: Stream


def forced_data(
    size: EngineSize, density: float, precision: Precision, weights: NDArray[Any] | None = None
) -> EngineData:
    """A v2 network that fires at a density, with weights of its own or another such network's."""
    description = EngineDescription(
        precision=precision,
        model="v2",
        num_bits=6,
        objective="ctc",
        frame_shift_s=0.01,
        labels=SymbolTable(kind="phones", symbols=()),
        **size._asdict(),
    )
    expected = expected_arrays(description)
    arrays = {name: np.zeros(shape, dtype) for name, (dtype, shape) in expected.items()}
    arrays["quantizers"][:] = (1.0, _LEVELS_PER_UNIT, 0.0, 1.0)
    rng, shape = np.random.default_rng(0), expected["weights"][1]
    if precision == "int8":
        arrays["scales"][:] = _TINY
    if weights is not None:
        arrays["weights"] = weights
    elif precision == "int8":
        arrays["weights"] = rng.integers(-127, 128, shape).astype(np.int8)
    else:
        arrays["weights"] = rng.standard_normal(shape, np.float32) * np.float32(_TINY)
    data = EngineData(description, arrays)
    for matrix in data.layout.matrices:
        if matrix.term.startswith("feed_forward"):
            gate, cell = matrix.bias_offset, matrix.bias_offset + matrix.block
            arrays["biases"][gate : gate + size.hidden_size] = _SHUT
            arrays["biases"][cell : cell + size.hidden_size] = _current(density)
    check(data, "forced density")
    return data


def _current(density: float) -> float:
    return density * 1.00001 / _LEVELS_PER_UNIT


def forced_step(
    size: EngineSize, density: float, precision: Precision, weights: NDArray[Any], num_frames: int
) -> ForcedStep:
    """Some frames, one at a time, through a network that fires at a density."""
    data = forced_data(size, density, precision, weights)
    engine = Engine(data)
    stream = engine.stream()
    rng = np.random.default_rng(1)
    for neurons, at, _ in data.layout.sites:
        stream.state.residue[at : at + neurons] = rng.random(neurons, np.float32) / _LEVELS_PER_UNIT
    frame = np.full((1, size.num_features), _current(density), np.float32)

    def step() -> None:
        for _ in range(num_frames):
            engine.advance(frame, stream)

    return ForcedStep(step, stream)
