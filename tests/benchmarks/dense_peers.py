"""Dense recognisers of a chosen size, advanced frame by frame, in PyTorch and in ONNX Runtime.

In ONNX Runtime the GRU runs as ONNX's own operator, and as matrix products, the form that its
dynamic quantisation knows (it has no 8-bit GRU operator):

    z = sigma(W_z x + U_z h + b_z)    r = sigma(W_r x + U_r h + b_r)
    n = tanh(W_n x + b_n + r * (U_n h + c_n))    h' = (1 - z) n + z h

Before anything is timed, both forms must give PyTorch's scores.
"""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evaluation.engine.onnx_graph import OnnxGraph
from tests.benchmarks.forced_density import EngineSize

Frame = NDArray[np.float32]
Advance = Callable[[Frame], NDArray[np.float32]]
"""Scores, (1, O), of the next frame, (1, F)."""


def dense_peers(size: EngineSize) -> dict[str, Advance]:
    """A GRU and an LSTM in PyTorch, and the GRU three times in ONNX Runtime."""
    torch.manual_seed(0)
    output = nn.Linear(size.hidden_size, size.num_outputs).eval()
    gru = nn.GRU(size.num_features, size.hidden_size, size.num_layers).eval()
    lstm = nn.LSTM(size.num_features, size.hidden_size, size.num_layers).eval()
    models = {name: _step_model(gru, output, name) for name in ("operator", "products")}
    peers = {
        "torch nn.GRU": _in_torch(gru, output),
        "torch nn.LSTM": _in_torch(lstm, output),
        "ONNX Runtime GRU, operator": _in_onnx(models["operator"], size),
        "ONNX Runtime GRU, products": _in_onnx(models["products"], size),
        "ONNX Runtime GRU, int8": _in_onnx(_in_8_bits(models["products"]), size),
    }
    _check(models, gru, output, size)
    return peers


def _check(models: dict[str, bytes], gru: nn.GRU, output: nn.Linear, size: EngineSize) -> None:
    frames = np.random.default_rng(0).standard_normal((5, 1, size.num_features), np.float32)
    wanted = _in_torch(gru, output)
    expected = [wanted(frame) for frame in frames]
    for model in models.values():
        advance = _in_onnx(model, size)
        np.testing.assert_allclose([advance(frame) for frame in frames], expected, atol=1e-4)


def _in_torch(cell: nn.RNNBase, output: nn.Linear) -> Advance:
    state: Any = None

    def advance(frame: Frame) -> NDArray[np.float32]:
        nonlocal state
        with torch.inference_mode():
            top, state = cell(torch.from_numpy(frame).unsqueeze(0), state)
            return output(top)[0].numpy()

    return advance


def _in_onnx(model: bytes, size: EngineSize) -> Advance:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    states = {f"h{n}": np.zeros((1, size.hidden_size), np.float32) for n in range(size.num_layers)}

    def advance(frame: Frame) -> NDArray[np.float32]:
        scores, *after = session.run(None, {"x": frame} | states)
        states.update(zip(states, after, strict=True))
        return scores

    return advance


def _in_8_bits(model: bytes) -> bytes:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="spikeline-bench-") as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(model)
        # The quantiser advises on a pre-processing that this graph does not need.
        logging.disable(logging.WARNING)
        try:
            quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True)
        finally:
            logging.disable(logging.NOTSET)
        return target.read_bytes()


def _step_model(gru: nn.GRU, output: nn.Linear, form: str) -> bytes:
    """One frame ``x`` and states ``h0`` ... in, ``scores`` and ``h0_out`` ... out."""
    graph = OnnxGraph()
    below, tops = graph.input("x", gru.input_size), []
    add_layer = _add_operator if form == "operator" else _add_products
    for layer in range(gru.num_layers):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        arrays = [gru.get_parameter(f"{name}_l{layer}").detach().numpy() for name in names]
        graph.input(f"h{layer}", gru.hidden_size)
        below = add_layer(graph, f"l{layer}_", f"h{layer}", below, arrays)
        tops.append(below)
    scores = _affine(graph, "output", below, output.weight, output.bias)
    graph.output("scores", scores, output.out_features)
    for layer, top in enumerate(tops):
        graph.output(f"h{layer}_out", top, gru.hidden_size)
    return graph.serialized("gru_step")


def _affine(graph: OnnxGraph, name: str, source: str, weight: Any, bias: Any) -> str:
    matrix = graph.constant(f"{name}_weight", torch.as_tensor(weight).detach().numpy().T)
    constant = graph.constant(f"{name}_bias", torch.as_tensor(bias).detach().numpy())
    product = graph.add("MatMul", [source, matrix], f"{name}_product")
    return graph.add("Add", [product, constant], f"{name}_sum")


def _add_operator(graph: OnnxGraph, p: str, state: str, below: str, arrays: list[Any]) -> str:
    # ONNX orders the gates z, r, n; PyTorch r, z, n.
    reordered = [np.concatenate([np.split(array, 3)[k] for k in (1, 0, 2)]) for array in arrays]
    w_ih, w_hh, b_ih, b_hh = reordered
    axis = graph.constant(p + "axis", np.array([0], np.int64))
    inputs = [
        graph.add("Unsqueeze", [below, axis], p + "sequence"),
        graph.constant(p + "W", w_ih[None]),
        graph.constant(p + "R", w_hh[None]),
        graph.constant(p + "B", np.concatenate([b_ih, b_hh])[None]),
        "",
        graph.add("Unsqueeze", [state, axis], p + "state"),
    ]
    options = {"hidden_size": w_hh.shape[1], "linear_before_reset": 1}
    graph.add_node("GRU", inputs, ["", p + "last"], **options)
    return graph.add("Squeeze", [p + "last", axis], p + "top")


def _add_products(graph: OnnxGraph, p: str, state: str, below: str, arrays: list[Any]) -> str:
    w_ih, w_hh, b_ih, b_hh = arrays
    gates_of_x = _affine(graph, p + "x", below, w_ih, b_ih)
    gates_of_h = _affine(graph, p + "h", state, w_hh, b_hh)
    x_r, x_z, x_n = graph.split(gates_of_x, [f"{p}x_{gate}" for gate in "rzn"])
    h_r, h_z, h_n = graph.split(gates_of_h, [f"{p}h_{gate}" for gate in "rzn"])
    reset = graph.add("Sigmoid", [graph.add("Add", [x_r, h_r], p + "r_sum")], p + "r")
    update = graph.add("Sigmoid", [graph.add("Add", [x_z, h_z], p + "z_sum")], p + "z")
    gated = graph.add("Mul", [reset, h_n], p + "gated")
    new = graph.add("Tanh", [graph.add("Add", [x_n, gated], p + "n_sum")], p + "n")
    # (1 - z) n + z h = n + z (h - n)
    change = graph.add("Sub", [state, new], p + "change")
    return graph.add("Add", [new, graph.add("Mul", [update, change], p + "kept")], p + "top")
