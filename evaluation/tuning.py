"""Choosing the weights of the search for symbols and of that for words on the dev split."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from evaluation.config import ViterbiConfig, WordSearchConfig
from evaluation.decoding import symbol_weights, word_weights
from evaluation.graph.search import GraphSearch
from evaluation.graph.search_graph import SearchGraph
from evaluation.scoring import count_edits, scored_transcript
from featurize.schema import LabelInventory

PRIOR_SCALES = (0.0, 0.5, 1.0)
_SYMBOL_GRID: Mapping[str, Sequence[float]] = {
    "bigram_weight": (0.5, 0.75, 1.0, 1.5, 2.0),
    "insertion_penalty": (-1.0, 0.0, 1.0, 2.0),
}
_WORD_GRID: Mapping[str, Sequence[float]] = {
    "lm_weight": (0.5, 0.75, 1.0, 1.5, 2.0),
    "word_score": (-1.0, 0.0, 1.0, 2.0, 3.0),
}
_TUNING_BEAM = 10.0

Weights = TypeVar("Weights", ViterbiConfig, WordSearchConfig)


@dataclass(frozen=True)
class ScoredUtterance:
    """A dev utterance's scores (T, O), reference labels and words."""

    log_probs_TS: NDArray[np.float32]
    labels: Sequence[int]
    words: tuple[str, ...] = ()


def tune_symbols(
    config: ViterbiConfig,
    graph: SearchGraph,
    utterances: Sequence[ScoredUtterance],
    labels: LabelInventory,
    spoken: LabelInventory,
) -> ViterbiConfig:
    """The weights with the fewest symbol errors, found one weight after the other, twice.

    Args:
        config: the weights to start from.
        graph: the model's.
        utterances: dev utterances.
        labels: what the utterances' labels are.
        spoken: what the model's labels are.
    """
    references = [scored_transcript(u.labels, labels).symbols for u in utterances]

    def count_errors(candidate: ViterbiConfig) -> int:
        search = GraphSearch(graph, symbol_weights(candidate))
        return sum(
            count_edits(reference, scored_transcript(search(u.log_probs_TS), spoken).symbols).errors
            for u, reference in zip(utterances, references, strict=True)
        )

    return one_after_the_other(config, _grid(graph, _SYMBOL_GRID), count_errors)


def tune_words(
    config: WordSearchConfig, graph: SearchGraph, utterances: Sequence[ScoredUtterance]
) -> WordSearchConfig:
    """The weights with the fewest word errors, found one weight after the other, twice.

    Args:
        config: the weights to start from, kept where others tie; the search is narrower than it.
        graph: the model's.
        utterances: dev utterances.
    """

    def count_errors(candidate: WordSearchConfig) -> int:
        weights = word_weights(candidate)
        narrow = weights.model_copy(update={"beam": min(weights.beam, _TUNING_BEAM)})
        search = GraphSearch(graph, narrow)
        return sum(
            count_edits(u.words, search.texts(search(u.log_probs_TS))).errors for u in utterances
        )

    return one_after_the_other(config, _grid(graph, _WORD_GRID), count_errors)


def _grid(
    graph: SearchGraph, weights: Mapping[str, Sequence[float]]
) -> Mapping[str, Sequence[float]]:
    """The prior scale too, where there is a prior."""
    return {**weights, "prior_scale": PRIOR_SCALES} if graph.log_prior_O.any() else weights


def one_after_the_other(
    config: Weights, grid: Mapping[str, Sequence[float]], count_errors: Callable[[Weights], int]
) -> Weights:
    """The best value of each weight with the others as they are, twice over all weights.

    What was counted is not counted again; a weight stays as it is where others tie.
    """
    errors: dict[Weights, int] = {}

    def remembered(candidate: Weights) -> int:
        if candidate not in errors:
            errors[candidate] = count_errors(candidate)
        return errors[candidate]

    for name in (*grid, *grid):
        best = config
        for value in grid[name]:
            candidate = config.model_copy(update={name: value})
            if remembered(candidate) < remembered(best):
                best = candidate
        config = best
    return config
