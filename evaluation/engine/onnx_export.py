"""A spiking recogniser as an ONNX model of one step: a frame and states in, scores and states out.

For running the model where there is an ONNX runtime and no engine. Sums and rounding are the
engine's own (``evaluation.engine.onnx_rounding``): a plain MatMul adds up in an order of the
runtime's, with which two layers of 550 spike differently before long. Spikes and scores are
the engine's where that machine fuses multiply-adds, which all current ones do. The price is a loop
over the spikes in place of a MatMul, a few microseconds each; rows of silent neurons are not read.

Inputs ``x`` (1, F) and, for every site n from the encoder (0) to the last layer, ``residue_n``;
for layers also ``current_n``, and for v2 and v3 ``spikes_n``; all zero at the start. Outputs
``scores`` (1, O), before the softmax, and every state again with ``_out`` behind its name.

The file's metadata is what else one needs to run it, each value as JSON (:func:`metadata`).
"""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.engine.engine import firing_table
from evaluation.engine.engine_file import EngineData
from evaluation.engine.layout import Matrix
from evaluation.engine.onnx_graph import OnnxGraph
from evaluation.engine.onnx_rounding import logistic, ordered_product
from featurize.stage import PipelineError
from training.constants import SATURATION, UNQUANTIZED_BITS


def dense_matrix(data: EngineData, matrix: Matrix) -> NDArray[np.float32]:
    """A matrix without its padding, (presynaptic neurons, outputs)."""
    end = matrix.offset + matrix.num_rows * matrix.width
    rows = data.arrays["weights"][matrix.offset : end].reshape(matrix.num_rows, matrix.width)
    return without_padding(rows, matrix)


def dense_bias(data: EngineData, matrix: Matrix) -> NDArray[np.float32]:
    """A bias without its padding, (outputs,)."""
    at = slice(matrix.bias_offset, matrix.bias_offset + matrix.width)
    return np.asarray(without_padding(data.arrays["biases"][None, at], matrix)[0])


def without_padding(rows: NDArray[np.float32], matrix: Matrix) -> NDArray[np.float32]:
    """The columns of all drives, one drive after the other."""
    size = matrix.fan_out // matrix.num_drives
    starts = [drive * matrix.block for drive in range(matrix.num_drives)]
    columns = [rows[:, start : start + size] for start in starts]
    return np.asarray(np.concatenate(columns, axis=1), np.float32)


def onnx_step_model(data: EngineData) -> bytes:
    """Serialise the step of a float32 engine."""
    if data.description.precision != "float32":
        raise PipelineError("ONNX export writes float32 weights; build a float32 engine")
    return _StepModel(data).serialized()


class _StepModel:
    def __init__(self, data: EngineData) -> None:
        self.data, self.description = data, data.description
        self.graph = OnnxGraph()
        self.limit = self.graph.constant("saturation", np.array(SATURATION, np.float32))
        self.negative_limit = self.graph.constant(
            "negative_saturation", np.array(-SATURATION, np.float32)
        )

    def serialized(self) -> bytes:
        description, layout = self.description, self.data.layout
        self.graph.input("x", description.num_features)
        sent = self._fire(0, self._encoded("x"))
        for layer in range(1, description.num_layers + 1):
            feed, back = layout.matrices[2 * layer - 2], layout.matrices[2 * layer - 1]
            drive = self._affine(feed, sent)
            if back.width:
                fed_back = self._state("spikes", layer)
                product = self._product(back, fed_back)
                drive = self.graph.add("Add", [drive, product], f"drive_{layer}")
            sent = self._fire(layer, self._current(layer, drive))
            if back.width:
                self._keep("spikes", layer, sent)
        scores = self._affine(layout.matrices[-1], sent)
        self.graph.output("scores", scores, description.num_outputs)
        return self.graph.serialized("spikeline_step", metadata(self.data))

    def _encoded(self, source: str) -> str:
        """What the encoder integrates: the features, or the learned map of them."""
        weight_FP = self.data.arrays.get("projection")
        if weight_FP is None:
            return source
        product = ordered_product(self.graph, "projection", source, weight_FP)
        bias = self.graph.constant("projection_bias", self.data.arrays["projection_bias"])
        return self.graph.add("Add", [product, bias], "projected")

    def _product(self, matrix: Matrix, source: str) -> str:
        return ordered_product(self.graph, matrix.term, source, dense_matrix(self.data, matrix))

    def _affine(self, matrix: Matrix, source: str) -> str:
        bias = self.graph.constant(f"{matrix.term}_bias", dense_bias(self.data, matrix))
        return self.graph.add("Add", [self._product(matrix, source), bias], f"{matrix.term}_drive")

    def _size(self, site: int) -> int:
        return self.description.site_sizes[site]

    def _state(self, name: str, site: int) -> str:
        return self.graph.input(f"{name}_{site}", self._size(site))

    def _keep(self, name: str, site: int, value: str) -> None:
        self.graph.output(f"{name}_{site}_out", value, self._size(site))

    def _saturated(self, value: str, name: str) -> str:
        return self.graph.add("Clip", [value, self.negative_limit, self.limit], name)

    def _current(self, layer: int, drive: str) -> str:
        """I of a layer: a decaying sum of its drive, or gated."""
        graph, before = self.graph, self._state("current", layer)
        if self.description.model == "conventional":
            start = int(self.data.layout.sites[layer, 1])
            decay = self.data.arrays["decays"][start : start + self._size(layer)]
            kept = graph.add(
                "Mul", [before, graph.constant(f"decay_{layer}", decay)], f"kept_{layer}"
            )
            total = graph.add("Add", [drive, kept], f"sum_{layer}")
        else:
            forget_drive, cell_drive = graph.split(
                drive, [f"forget_drive_{layer}", f"cell_drive_{layer}"]
            )
            forget = logistic(graph, f"forget_{layer}", forget_drive)
            one = graph.constant(f"one_{layer}", np.array(1.0, np.float32))
            admit = graph.add("Sub", [one, forget], f"admit_{layer}")
            cell = self._saturated(
                graph.add("Relu", [cell_drive], f"relu_{layer}"), f"cell_{layer}"
            )
            kept = graph.add("Mul", [forget, before], f"kept_{layer}")
            new = graph.add("Mul", [admit, cell], f"new_{layer}")
            total = graph.add("Add", [kept, new], f"sum_{layer}")
        current = self._saturated(total, f"current_now_{layer}")
        self._keep("current", layer, current)
        return current

    def _fire(self, site: int, drive: str) -> str:
        """Integrate, quantise, reset; returns what is sent on (single bits as -1, 0 and 1)."""
        graph = self.graph
        total = graph.add("Add", [self._state("residue", site), drive], f"integrated_{site}")
        potential = self._saturated(total, f"potential_{site}")
        if self.description.num_bits == UNQUANTIZED_BITS:
            self._keep_residue(site, potential, potential)
            return potential
        range_M, scale, threshold, _ = firing_table(self.data)[site]
        numbers = {
            "range": range_M,
            "scale": scale,
            "lowest": -range_M,
            # A whole threshold is passed by the level where it is passed by the potential.
            "threshold": threshold,
            "zero": 0.0,
        }
        largest, scale, lowest, threshold, zero = (
            graph.constant(f"{name}_{site}", np.array(value, np.float32))
            for name, value in numbers.items()
        )
        clipped = graph.add("Clip", [potential, lowest, largest], f"clipped_{site}")
        scaled = graph.add("Mul", [clipped, scale], f"scaled_{site}")
        size = graph.add("Abs", [scaled], f"size_{site}")
        whole = graph.add("Floor", [size], f"whole_{site}")
        speaks = graph.add("GreaterOrEqual", [size, threshold], f"speaks_{site}")
        signed = graph.add("Mul", [graph.add("Sign", [scaled], f"sign_{site}"), whole], f"k_{site}")
        level = graph.add("Where", [speaks, signed, zero], f"level_{site}")
        spikes = graph.add("Div", [level, scale], f"spike_{site}")
        self._keep_residue(site, potential, spikes)
        return level if self.description.num_bits == 1 else spikes

    def _keep_residue(self, site: int, potential: str, spikes: str) -> None:
        residue = self.graph.add("Sub", [potential, spikes], f"rest_{site}")
        if "leaks" in self.data.arrays:
            start = int(self.data.layout.sites[site, 1])
            leak = self.data.arrays["leaks"][start : start + self._size(site)]
            leaks = self.graph.constant(f"leak_{site}", leak)
            residue = self.graph.add("Mul", [leaks, residue], f"leaked_{site}")
        self._keep("residue", site, residue)


def metadata(data: EngineData) -> dict[str, str]:
    """What is needed to run the graph, beside it, by key, each value as JSON.

    ``outputs`` names every score, ``symbols`` are what they spell, ``states`` has the size of every
    state input, ``frame_shift_s`` the seconds from one step to the next, ``target_delay`` the steps
    by which scores come late, and where the engine listens ``features`` says how frames are made.
    Their ``cmvn`` says how training normalised them: ``none``, not at all; ``global``, by ``mean``
    and ``std``; ``speaker``, by those of all that a speaker said, in place of which ``mean`` and
    ``std`` serve, less well, where that is not known.
    """
    description, front_end = data.description, data.description.front_end
    said: dict[str, Any] = {
        "objective": description.objective,
        "outputs": description.output_names,
        "symbols": description.labels.symbols,
        "states": {name: state.shape[1] for name, state in initial_states(data).items()},
        "frame_shift_s": description.frame_shift_s,
        "target_delay": description.target_delay,
        "trained_as": description.trained_as,
    }
    if front_end is not None:
        said["features"] = front_end.model_dump(mode="json", exclude={"mean", "std"})
        if front_end.cmvn != "none":
            said |= {"mean": front_end.mean, "std": front_end.std}
    return {key: json.dumps(value) for key, value in said.items()}


def initial_states(data: EngineData) -> dict[str, NDArray[Any]]:
    """Zeros for every state input of the step model."""
    description = data.description
    states: dict[str, NDArray[Any]] = {}
    for site, size in enumerate(description.site_sizes):
        names = ["residue"] + (["current"] if site else [])
        if site and description.model in ("v2", "v3"):
            names.append("spikes")
        states |= {f"{name}_{site}": np.zeros((1, size), np.float32) for name in names}
    return states
