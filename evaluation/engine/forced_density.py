"""An engine whose neurons fire at a density of one's choosing, to time the step at any density.

Every neuron is driven by a constant current of ``p`` levels a frame with a threshold of one level,
so that it fires in a share ``p`` of the frames; residues start at random, so that the neurons take
turns and hardly one fires in two frames running: no row of weights is still in the fast cache by
chance. Weights are there, and read, but too small to disturb.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.engine.description import EngineDescription, Precision, SymbolTable
from evaluation.engine.engine import Engine, Floats, Stream
from evaluation.engine.engine_file import EngineData, check, expected_arrays

_LEVELS_PER_UNIT = 31.0
_TINY = 1e-20
_SHUT = -80.0


def forced_engine(
    num_features: int,
    hidden_size: int,
    num_layers: int,
    num_outputs: int,
    density: float,
    precision: Precision,
    weights: NDArray[Any] | None = None,
) -> EngineData:
    """A v2 network of a given size that fires at a given density.

    Args:
        num_features: F.
        hidden_size: H.
        num_layers: L.
        num_outputs: O.
        density: share of the outputs of every layer that are not zero, 0 to 1.
        precision: of the weights.
        weights: another such engine's, to be shared; so several of them do not drive each other
            out of the cache.
    """
    description = EngineDescription(
        precision=precision,
        model="v2",
        num_layers=num_layers,
        num_features=num_features,
        hidden_size=hidden_size,
        num_outputs=num_outputs,
        num_bits=6,
        objective="ctc",
        frame_shift_s=0.01,
        labels=SymbolTable(kind="phones", symbols=()),
    )
    rng = np.random.default_rng(0)
    expected = expected_arrays(description)
    arrays: dict[str, NDArray[Any]] = {
        name: np.zeros(shape, dtype) for name, (dtype, shape) in expected.items()
    }
    arrays["quantizers"][:] = (1.0, _LEVELS_PER_UNIT, 0.0, 1.0)
    if precision == "int8":
        arrays["scales"][:] = _TINY
    if weights is not None:
        arrays["weights"] = weights
    elif precision == "int8":
        arrays["weights"] = rng.integers(-127, 128, expected["weights"][1]).astype(np.int8)
    else:
        values = rng.standard_normal(expected["weights"][1], np.float32)
        arrays["weights"] = values * np.float32(_TINY)
    data = EngineData(description, arrays)
    for matrix in data.layout.matrices:
        if matrix.term.startswith("feed_forward"):
            at = matrix.bias_offset
            arrays["biases"][at : at + hidden_size] = _SHUT
            cell = slice(at + matrix.block, at + matrix.block + hidden_size)
            arrays["biases"][cell] = per_frame(density)
    check(data, "forced density")
    return data


def per_frame(density: float) -> float:
    """The current that makes a neuron fire in this share of the frames."""
    return density * 1.00001 / _LEVELS_PER_UNIT


def forced_frames(num_features: int, density: float) -> Floats:
    """A frame, (1, F), that drives the encoder likewise."""
    return np.full((1, num_features), per_frame(density), np.float32)


def forced_stream(engine: Engine) -> Stream:
    """A stream whose neurons take turns."""
    stream = engine.stream()
    rng = np.random.default_rng(1)
    layout_sites = zip(engine.description.site_sizes, engine.state_offsets, strict=True)
    for size, at in layout_sites:
        stream.residue[at : at + size] = rng.random(size, np.float32) / _LEVELS_PER_UNIT
    return stream
