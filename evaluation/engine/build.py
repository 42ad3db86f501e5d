"""From a trained recogniser to an engine: batch norm folded, fan-outs laid out, 8-bit weights.

Shape legend: G outputs of a matrix, K presynaptic neurons, C columns of a row (fan-out, padded).
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from evaluation.engine.description import (
    EngineDescription,
    FrontEndConfig,
    LeakyDescription,
    Precision,
    SearchDescription,
    SymbolTable,
)
from evaluation.engine.engine_file import EngineData, check, search_arrays
from evaluation.engine.layout import Layout, Matrix, lay_out
from evaluation.graph.search import GraphSearch
from featurize.schema import LabelInventory
from featurize.stage import PipelineError, condense
from training.lif import FiringRule
from training.manifest import TrainManifest
from training.models.spiking import ConventionalLayer, GatedLayer, LifLayer, SpikingNetwork
from training.quantizer import Quantizer
from training.trained_model import TrainedModel

TOP_BYTE = 127


@dataclass(frozen=True, eq=False)
class EngineSearches:
    """The searches that an engine carries."""

    symbols: GraphSearch | None  # search for symbols; None takes the best output of each frame
    words: GraphSearch | None
    chosen_by: str  # fingerprint of the evaluation that chose the weights; empty for defaults

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The graphs for the engine."""
        named = {"symbols": self.symbols, "words": self.words}
        return {
            name: array
            for prefix, search in named.items()
            if search is not None
            for name, array in search_arrays(prefix, search.graph).items()
        }


def symbol_table(labels: LabelInventory) -> SymbolTable:
    """The symbols as an engine writes them, which is as an evaluation scores them."""
    return SymbolTable(
        kind=labels.kind,
        symbols=labels.symbols,
        word_boundary=labels.word_boundary,
        scored_as=labels.scored_as,
    )


def output_names(manifest: TrainManifest) -> tuple[str, ...]:
    """What each output is: a symbol, "SYMBOL.PART.NUMBER" of a state, or "<blank>" of CTC."""
    symbols, states = manifest.labels.symbols, manifest.states
    if states is None:
        return (*symbols, "<blank>") if manifest.config.objective == "ctc" else symbols
    seen: Counter[tuple[int, int]] = Counter()
    names = []
    for place in zip(states.phones, states.positions, strict=True):
        seen[place] += 1
        names.append(f"{symbols[place[0]]}.{place[1] + 1}.{seen[place]}")
    return tuple(names)


def describe(search: GraphSearch | None, searches: EngineSearches) -> SearchDescription | None:
    """A search without its numbers."""
    if search is None:
        return None
    return SearchDescription(
        size=search.graph.size, weights=search.weights, chosen_by=searches.chosen_by
    )


def spiking_network(recogniser: TrainedModel) -> SpikingNetwork:
    """The network that an engine is made of."""
    network = recogniser.network
    if not isinstance(network, SpikingNetwork):
        raise PipelineError(
            f"model={network.config.model} does not spike; the event-driven engine runs "
            "conventional, v1, v2 and v3"
        )
    return network


def build_engine(
    recogniser: TrainedModel,
    precision: Precision = "float32",
    front_end: FrontEndConfig | None = None,
    searches: EngineSearches | None = None,
    trained_on: str = "",
) -> EngineData:
    """Lay a trained spiking recogniser out for the engine.

    Args:
        precision: of the weights. ``int8`` has one scale per output of a matrix.
        front_end: how frames are made, for an engine that listens to samples.
        searches: how symbols and words are found, for an engine that listens.
        trained_on: on what speech, in a sentence.
    """
    network, manifest = spiking_network(recogniser), recogniser.manifest
    try:
        description = EngineDescription(
            precision=precision,
            model=network.config.model,
            v3=_leaky_description(network),
            projection_size=network.config.projection_size,
            num_layers=network.config.num_layers,
            num_features=network.num_features,
            hidden_size=network.config.hidden_size,
            num_outputs=network.num_outputs,
            num_bits=network.config.num_bits,
            objective=manifest.config.objective,
            frame_shift_s=manifest.frame_shift_s,
            labels=symbol_table(manifest.labels),
            output_names=output_names(manifest),
            symbol_search=None if searches is None else describe(searches.symbols, searches),
            word_search=None if searches is None else describe(searches.words, searches),
            target_delay=recogniser.target_delay,
            front_end=front_end,
            trained_as=manifest.fingerprint,
            trained_on=trained_on,
        )
    except ValidationError as error:
        raise PipelineError(condense(error)) from None
    arrays = _network_arrays(network, description)
    if searches is not None:
        arrays |= searches.arrays()
    data = EngineData(description, arrays)
    check(data, f"model {manifest.fingerprint}")
    return data


@torch.no_grad()
def _network_arrays(
    network: SpikingNetwork, description: EngineDescription
) -> dict[str, NDArray[Any]]:
    layout = lay_out(description)
    layers = [layer for layer in network.layers if isinstance(layer, LifLayer)]
    sites = [network.encoder_site, *(layer.site for layer in layers)]
    firings = [site.firing() for site in sites]
    scales_of_sites = [_scale(firing.quantizer) for firing in firings]
    arrays: dict[str, NDArray[Any]] = {
        "quantizers": np.array([_row(firing.quantizer) for firing in firings], np.float32),
        "biases": np.zeros(layout.num_biases, np.float32),
        "weights": np.zeros(layout.num_weights, description.precision),
    }
    if description.precision == "int8":
        arrays["scales"] = np.zeros(layout.num_biases, np.float32)
    if description.model == "conventional":
        arrays["decays"] = _decays(layers, layout)
    if description.v3 is not None:
        arrays |= _leaky_arrays(network, firings, layout)
    if description.projection_size is not None:
        weight, bias = network.projection_norm.folded(network.projection.weight)
        arrays["projection"] = np.ascontiguousarray(weight.T.numpy())
        arrays["projection_bias"] = bias.numpy()
    for number, layer in enumerate(layers):
        weight, bias = layer.norm.folded(layer.input_map.weight)
        feed, back = layout.matrices[2 * number], layout.matrices[2 * number + 1]
        _place(arrays, feed, weight, bias, scales_of_sites[number], description)
        if isinstance(layer, GatedLayer) and layer.recurrent_weight is not None:
            scale = scales_of_sites[number + 1]
            _place(arrays, back, layer.recurrent_weight, None, scale, description)
    weight, bias = network.output.norm.folded(network.output.linear.weight)
    _place(arrays, layout.matrices[-1], weight, bias, scales_of_sites[-1], description)
    return arrays


def _leaky_description(network: SpikingNetwork) -> LeakyDescription | None:
    if network.config.model != "v3":
        return None
    return LeakyDescription(has_leak=network.config.leaky.residue_leak)


def _scale(quantizer: Quantizer) -> np.float32:
    if not quantizer.is_quantized:
        return np.float32(1.0)
    return np.float32(quantizer.scale().item())


def _row(quantizer: Quantizer) -> tuple[float, float, float, float]:
    is_quantized = float(quantizer.is_quantized)
    range_M, threshold = float(quantizer.range_M), float(quantizer.threshold_levels) - 1.0
    return range_M, float(_scale(quantizer)), threshold, is_quantized


def _leaky_arrays(
    network: SpikingNetwork, firings: list[FiringRule], layout: Layout
) -> dict[str, NDArray[Any]]:
    """What only v3 has."""
    thresholds = [firing.quantizer.threshold_levels.item() for firing in firings]
    arrays: dict[str, NDArray[Any]] = {"thresholds": np.array(thresholds, np.float32)}
    if network.config.leaky.residue_leak:
        leaks = arrays["leaks"] = np.zeros(layout.state_size, np.float32)
        for site, firing in zip(layout.sites, firings, strict=True):
            assert firing.residue_leak is not None
            leaks[site[1] : site[1] + site[0]] = firing.residue_leak.numpy()
    return arrays


def _decays(layers: list[LifLayer], layout: Layout) -> NDArray[np.float32]:
    decays = np.zeros(layout.state_size, np.float32)
    for site, layer in zip(layout.sites[1:], layers, strict=True):
        assert isinstance(layer, ConventionalLayer)
        decays[site[1] : site[1] + site[0]] = layer.decay.numpy()
    return decays


def _place(
    arrays: dict[str, NDArray[Any]],
    matrix: Matrix,
    weight_GK: torch.Tensor,
    bias_G: torch.Tensor | None,
    level_scale_of_input: np.float32,
    description: EngineDescription,
) -> None:
    """Write one matrix, and its bias and scales, to their places."""
    weight_KC = _spread(weight_GK.T.numpy(), matrix)
    biases = slice(matrix.bias_offset, matrix.bias_offset + matrix.width)
    if bias_G is not None:
        arrays["biases"][biases] = _spread(bias_G.numpy()[None], matrix)[0]
    weights = slice(matrix.offset, matrix.offset + matrix.num_rows * matrix.width)
    if description.precision == "int8":
        step_C = np.abs(weight_KC).max(axis=0) / TOP_BYTE
        whole = np.rint(weight_KC / np.where(step_C > 0, step_C, 1.0))
        arrays["weights"][weights] = whole.astype(np.int8).reshape(-1)
        # A spike is its level over the scale of its site: that factor, too, folds into the step.
        arrays["scales"][biases] = step_C / level_scale_of_input
        return
    if description.num_bits == 1:
        # A single bit is added or taken off, without a product: its size folds into the weight.
        weight_KC = weight_KC / level_scale_of_input
    arrays["weights"][weights] = weight_KC.reshape(-1)


def _spread(rows_KG: NDArray[np.float32], matrix: Matrix) -> NDArray[np.float32]:
    """Pad every drive's block of columns to whole vectors, and the row to its width."""
    num_rows = rows_KG.shape[0]
    size = matrix.fan_out // matrix.num_drives
    spread = np.zeros((num_rows, matrix.width), np.float32)
    for drive in range(matrix.num_drives):
        at = drive * matrix.block
        spread[:, at : at + size] = rows_KG[:, drive * size : (drive + 1) * size]
    return spread
