"""The engine's sums and its logistic function in ONNX operators, rounding by rounding.

A spiking network turns a difference in the last bit into another spike, sooner or later: of a
potential within rounding of a level, one runtime makes a spike and the other does not. More
precision in the graph alone would not help, because the engine, as training, rounds to float32
after every term; so no sum is left to the runtime's own order, and no logistic function to its own
approximation. ONNX has no fused multiply-add either: here it is a product and
a sum in float64, in which the product is exact, and then float32. (That rounds twice, and gives
another float32 than rounding once in some 2^29 operations.)

Shape legend: K presynaptic neurons, n of them with spikes, G outputs of a matrix.
"""

import numpy as np
from numpy.typing import NDArray

from evaluation.engine.onnx_graph import OnnxGraph
from training.kernels import cpu_firing as engine

_LARGEST_POWER = 126
"""Of 2 in ``logistic``, either way: 87 / ln(2)."""


def ordered_product(
    graph: OnnxGraph, name: str, source: str, weight_KG: NDArray[np.float32]
) -> str:
    """``source (1, K) @ weight`` as the engine adds it up: the non-zeros in order, each fused.

    Rows of silent neurons are not read.

    Returns:
        Name of the result, (1, G).
    """

    def add(operator: str, inputs: list[str], suffix: str, **attributes: object) -> str:
        return graph.add(operator, inputs, f"{name}_{suffix}", **attributes)

    flat = graph.shared("flat", np.array([-1]))
    column = graph.shared("column", np.array([-1, 1]))
    values = add("Reshape", [source, flat], "values")
    found = add("Reshape", [add("NonZero", [values], "nonzero"), flat], "found")
    weight = graph.constant(f"{name}_weight", weight_KG)
    rows = graph.double(add("Gather", [weight, found], "rows", axis=0))
    spikes = add("Reshape", [add("Gather", [values, found], "spikes"), column], "spike_column")
    terms = add("Mul", [graph.double(spikes), rows], "terms")
    # A row of zeros comes first: a runtime may not like to scan nothing.
    nothing = graph.constant(f"{name}_nothing", np.zeros((1, weight_KG.shape[1])))
    terms = add("Concat", [nothing, terms], "all_terms", axis=0)
    start = graph.constant(f"{name}_start", np.zeros((1, weight_KG.shape[1]), np.float32))
    return graph.running_sum(start, terms, f"{name}_product")


def logistic(graph: OnnxGraph, name: str, source: str) -> str:
    """``1 / (1 + exp(-source))`` as ``training.kernels.cpu_firing.logistic`` computes it."""

    def add(operator: str, inputs: list[str], suffix: str) -> str:
        return graph.add(operator, inputs, f"{name}_{suffix}")

    def number(value: np.float32, label: str) -> str:
        return graph.shared(label, np.array(value, np.float32))

    def fused(factor: str, other: str, addend: str, suffix: str) -> str:
        product = add("Mul", [graph.double(factor), graph.double(other)], f"{suffix}_product")
        total = add("Add", [product, graph.double(addend)], f"{suffix}_sum")
        return graph.single(total)

    limit, one = number(engine.EXP_LIMIT, "exp_limit"), number(np.float32(1.0), "one")
    low = number(-engine.EXP_LIMIT, "negative_exp_limit")
    x = add("Clip", [add("Neg", [source], "negative"), low, limit], "x")
    power = add("Round", [add("Mul", [x, number(engine.LOG2_E, "log2_e")], "scaled")], "power")
    r = fused(power, number(-engine.LN2_HIGH, "ln2_high"), x, "r_high")
    r = fused(power, number(-engine.LN2_LOW, "ln2_low"), r, "r")
    series = number(engine.EXP_7, "exp_7")
    coefficients = (engine.EXP_6, engine.EXP_5, engine.EXP_4, engine.EXP_3, engine.EXP_2)
    for degree, coefficient in zip(range(6, 1, -1), coefficients, strict=True):
        series = fused(series, r, number(coefficient, f"exp_{degree}"), f"series_{degree}")
    linear = add("Add", [r, one], "linear")
    series = fused(series, add("Mul", [r, r], "square"), linear, "series")
    powers = np.float32(2.0) ** np.arange(-_LARGEST_POWER, _LARGEST_POWER + 1, dtype=np.float32)
    offset = number(np.float32(_LARGEST_POWER), "largest_power")
    place = graph.whole(add("Add", [power, offset], "place"))
    two = add("Gather", [graph.shared("powers_of_two", powers), place], "power_of_two")
    exponential = add("Mul", [series, two], "exponential")
    return add("Div", [one, add("Add", [one, exponential], "denominator")], "value")
