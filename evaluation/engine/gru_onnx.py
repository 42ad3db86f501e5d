"""A stacked GRU as an ONNX step model: what a dense recogniser would run in ONNX Runtime.

One frame in, scores and states out. Twice: with ONNX's own GRU operator, and with its equations as
matrix products, which is the form that ONNX Runtime's dynamic quantisation knows (it has no 8-bit
GRU operator).

    z = sigma(W_z x + U_z h + b_z)    r = sigma(W_r x + U_r h + b_r)
    n = tanh(W_n x + b_n + r * (U_n h + c_n))    h' = (1 - z) n + z h
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evaluation.engine.onnx_graph import OnnxGraph

Arrays = list[NDArray[Any]]


def _numpy(tensor: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().numpy()
    return array


def gru_step_model(gru: nn.GRU, output: nn.Linear, *, as_products: bool) -> bytes:
    """The step of a stacked GRU and its output layer.

    Args:
        gru: unidirectional.
        output: scores of the top layer's state.
        as_products: matrix products in place of the GRU operator.

    Returns:
        A model with inputs ``x`` (1, F), ``h0`` ... (1, H), outputs ``scores`` and ``h0_out`` ...
    """
    graph = OnnxGraph()
    below = graph.input("x", gru.input_size)
    tops = []
    for layer in range(gru.num_layers):
        weights: Arrays = [
            _numpy(gru.get_parameter(f"{kind}_l{layer}"))
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        graph.input(f"h{layer}", gru.hidden_size)
        make = _products_layer if as_products else _operator_layer
        below = make(graph, layer, below, weights)
        tops.append(below)
    weight = graph.constant("output_weight", _numpy(output.weight).T)
    product = graph.add("MatMul", [below, weight], "output_product")
    bias = graph.constant("output_bias", _numpy(output.bias))
    scores = graph.add("Add", [product, bias], "output_sum")
    graph.output("scores", scores, output.out_features)
    for layer, top in enumerate(tops):
        graph.output(f"h{layer}_out", top, gru.hidden_size)
    return graph.serialized("gru_step")


def _operator_layer(graph: OnnxGraph, layer: int, below: str, weights: Arrays) -> str:
    """ONNX orders the gates z, r, n; torch r, z, n."""

    def reordered(array: NDArray[Any]) -> NDArray[Any]:
        reset, update, new = np.split(array, 3)
        return np.concatenate([update, reset, new])

    w_ih, w_hh, b_ih, b_hh = (reordered(array) for array in weights)
    p = f"l{layer}_"
    axis = graph.constant(p + "axis", np.array([0], np.int64))
    inputs = [
        graph.add("Unsqueeze", [below, axis], p + "sequence"),
        graph.constant(p + "W", w_ih[None]),
        graph.constant(p + "R", w_hh[None]),
        graph.constant(p + "B", np.concatenate([b_ih, b_hh])[None]),
        "",
        graph.add("Unsqueeze", [f"h{layer}", axis], p + "state"),
    ]
    graph.add_node(
        "GRU", inputs, ["", p + "last"], hidden_size=w_hh.shape[1], linear_before_reset=1
    )
    return graph.add("Squeeze", [p + "last", axis], p + "top")


def _products_layer(graph: OnnxGraph, layer: int, below: str, weights: Arrays) -> str:
    p = f"l{layer}_"
    w_ih, w_hh, b_ih, b_hh = weights
    gates = []
    for name, source, weight, bias in (("x", below, w_ih, b_ih), ("h", f"h{layer}", w_hh, b_hh)):
        matrix = graph.constant(f"{p}{name}_weight", weight.T)
        product = graph.add("MatMul", [source, matrix], f"{p}{name}_product")
        constant = graph.constant(f"{p}{name}_bias", bias)
        biased = graph.add("Add", [product, constant], f"{p}{name}_biased")
        gates.append(graph.split(biased, [f"{p}{name}_{gate}" for gate in "rzn"]))
    (x_r, x_z, x_n), (h_r, h_z, h_n) = gates
    reset = graph.add("Sigmoid", [graph.add("Add", [x_r, h_r], p + "r_sum")], p + "r")
    update = graph.add("Sigmoid", [graph.add("Add", [x_z, h_z], p + "z_sum")], p + "z")
    gated = graph.add("Mul", [reset, h_n], p + "gated")
    new = graph.add("Tanh", [graph.add("Add", [x_n, gated], p + "n_sum")], p + "n")
    # (1 - z) n + z h = n + z (h - n)
    change = graph.add("Sub", [f"h{layer}", new], p + "change")
    kept = graph.add("Mul", [update, change], p + "kept")
    return graph.add("Add", [new, kept], p + "top")
