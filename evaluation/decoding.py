"""From the scores of a recogniser to symbols.

Shape legend: T frames, O outputs, S symbols; CTC has O = S + 1 with the blank last.
"""

from collections.abc import Callable
from itertools import groupby
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from evaluation.config import (
    MAX_PREFIXES,
    DecoderName,
    EvaluateConfig,
    ViterbiConfig,
    WordSearchConfig,
)
from evaluation.graph.outputs import outputs_of, search_graph
from evaluation.graph.phones import phone_graph
from evaluation.graph.search import GraphSearch, SearchWeights
from evaluation.graph.search_graph import SearchGraph
from evaluation.graph.store import KeptGraph, MadeGraph, keep_graph
from featurize.stage import Location, PipelineError
from training.manifest import TrainManifest
from training.trained_model import TrainedModel

_USUAL_SHIFT_S = 0.03
_LARGEST_WEIGHT, _WIDEST_BEAM = 100.0, 1e4  # that a configuration takes
_BY_TIME = ("bigram_weight", "insertion_penalty", "lm_weight", "word_score", "beam")

Weights = TypeVar("Weights", ViterbiConfig, WordSearchConfig)
Decoder = Callable[[NDArray[np.float32]], list[int]]
"""Log-probabilities of one utterance's valid frames, (T, O), to symbol ids."""


def ctc_greedy(log_probs_TO: NDArray[np.float32]) -> list[int]:
    """The best output of each frame, repeats collapsed and blanks (the last output) removed."""
    blank = log_probs_TO.shape[1] - 1
    return [number for number, _ in groupby(log_probs_TO.argmax(1).tolist()) if number != blank]


def choose_decoder(config: EvaluateConfig, objective: str, model: str) -> DecoderName:
    """Resolve ``decoder=auto`` and refuse a decoder that the model's objective cannot use."""
    fitting: tuple[DecoderName, ...] = ("viterbi",)
    if objective == "ctc":
        fitting = ("greedy", "viterbi", "prefix")
    if config.decoder == "auto":
        return fitting[0]
    if config.decoder not in fitting:
        raise PipelineError(
            f"decoder={config.decoder} does not fit {model}, trained with objective="
            f"{objective}; use decoder={' or '.join(fitting)}, or auto"
        )
    return config.decoder


def symbol_graph(recogniser: TrainedModel, smoothing: float, runs: Location) -> KeptGraph:
    """The graph over a recogniser's outputs in which symbols are found, made once and kept.

    Args:
        recogniser: the model, for its label statistics.
        smoothing: added to every bigram count.
    """
    parts = {
        "outputs": outputs_of(recogniser).digest,
        "symbols": recogniser.manifest.labels.symbols,
        "bigram_counts": bigram_counts(recogniser).tolist(),
        "smoothing": smoothing,
    }

    def make() -> MadeGraph:
        return MadeGraph(made_symbol_graph(recogniser, smoothing), None, {})

    return keep_graph(runs, "symbols", parts, make)


def made_symbol_graph(recogniser: TrainedModel, smoothing: float) -> SearchGraph:
    """The same, made and not kept."""
    outputs = outputs_of(recogniser)
    graph = phone_graph(outputs, bigram_counts(recogniser), smoothing)
    return search_graph(graph, recogniser.manifest.labels.symbols, outputs)


def symbol_search(recogniser: TrainedModel, config: ViterbiConfig) -> GraphSearch:
    """A search for symbols with some weights, in a graph that is made for it and not kept."""
    graph = made_symbol_graph(recogniser, config.smoothing)
    scaled = by_time(config, time_scale(recogniser.manifest))
    return GraphSearch(graph, symbol_weights(scaled, "viterbi"))


def bigram_counts(recogniser: TrainedModel) -> NDArray[np.int64]:
    """(S + 1, S + 1) of the training labels; row S counts starts, column S ends."""
    if "bigram_counts" not in recogniser.label_statistics:
        raise PipelineError(
            "the search needs the training label statistics, which this model lacks; train it again"
        )
    return np.asarray(recogniser.label_statistics["bigram_counts"].numpy(), np.int64)


def time_scale(model: TrainManifest) -> float:
    """What the weights of a language model, and a beam, are multiplied by for a model's frames.

    They are stated for frames of 30 ms. The same sound has three times as many frames of 10 ms,
    which tell much the same, and scores as often. CTC names a symbol in one frame or a few, however
    many there are.
    """
    if model.config.objective == "ctc":
        return 1.0
    return round(_USUAL_SHIFT_S / model.frame_shift_s, 6)


def by_time(config: Weights, scale: float) -> Weights:
    """The settings of a search for frames of some length, by their ``time_scale``."""
    scaled = {}
    for name in set(_BY_TIME).intersection(type(config).model_fields):
        bound = _WIDEST_BEAM if name == "beam" else _LARGEST_WEIGHT
        scaled[name] = min(max(getattr(config, name) * scale, -bound), bound)
    return config.model_copy(update=scaled)


def symbol_weights(config: ViterbiConfig, decoder: DecoderName) -> SearchWeights:
    """The weights of a search for symbols, as the search knows them."""
    return SearchWeights(
        lm_weight=config.bigram_weight,
        word_score=-config.insertion_penalty,
        prior_scale=config.prior_scale,
        beam=config.beam,
        max_active=config.max_active,
        max_prefixes=(config.max_prefixes or MAX_PREFIXES) if decoder == "prefix" else None,
    )


def word_weights(config: WordSearchConfig) -> SearchWeights:
    """The weights of a search for words, as the search knows them."""
    return SearchWeights(
        lm_weight=config.lm_weight,
        word_score=config.word_score,
        prior_scale=config.prior_scale,
        beam=config.beam,
        max_active=config.max_active,
    )
