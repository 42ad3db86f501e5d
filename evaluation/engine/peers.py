"""Dense recognisers of the same size, advanced frame by frame, to be timed beside the engine."""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Step = Callable[[NDArray[np.float32]], object]
"""Advance by one frame, (1, F)."""


def torch_step(kind: str, num_features: int, hidden: int, layers: int, outputs: int) -> Step:
    """``nn.GRU`` or ``nn.LSTM`` with a linear output, as one would write it in PyTorch."""
    torch.manual_seed(0)
    cell_type = nn.LSTM if kind == "lstm" else nn.GRU
    cell = cell_type(num_features, hidden, layers).eval()
    output = nn.Linear(hidden, outputs).eval()
    state: Any = None

    def step(frame: NDArray[np.float32]) -> object:
        nonlocal state
        with torch.inference_mode():
            top, state = cell(torch.from_numpy(frame).unsqueeze(0), state)
            return output(top)

    return step


def onnx_steps(num_features: int, hidden: int, layers: int, outputs: int) -> dict[str, Step]:
    """The same GRU in ONNX Runtime: its operator, as products, and as products in 8 bits.

    Raises:
        ImportError: without the packages of the ``export`` extra.
    """
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from evaluation.engine.gru_onnx import gru_step_model

    torch.manual_seed(0)
    gru = nn.GRU(num_features, hidden, layers).eval()
    linear = nn.Linear(hidden, outputs).eval()
    with tempfile.TemporaryDirectory(prefix="spikeline-bench-") as folder:
        paths = {}
        for name, as_products in (("operator", False), ("products", True)):
            paths[name] = Path(folder) / f"{name}.onnx"
            model = gru_step_model(gru, linear, as_products=as_products)
            paths[name].write_bytes(model)
        paths["int8"] = Path(folder) / "int8.onnx"
        # The quantiser advises on a pre-processing that this graph does not need.
        logging.disable(logging.WARNING)
        try:
            quantize_dynamic(
                paths["products"], paths["int8"], weight_type=QuantType.QInt8, per_channel=True
            )
        finally:
            logging.disable(logging.NOTSET)
        return {
            name: _session_step(onnxruntime, path.read_bytes(), hidden, layers)
            for name, path in paths.items()
        }


def _session_step(onnxruntime: Any, model: bytes, hidden: int, layers: int) -> Step:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    states = {f"h{n}": np.zeros((1, hidden), np.float32) for n in range(layers)}

    def step(frame: NDArray[np.float32]) -> object:
        scores, *after = session.run(None, {"x": frame} | states)
        states.update(zip(states, after, strict=True))
        return scores

    return step
