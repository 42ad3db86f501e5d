"""Choosing the weights of the search for symbols and of that for words on the dev split."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from evaluation.config import DecoderName, ViterbiConfig, WordSearchConfig
from evaluation.decoding import symbol_weights, word_weights
from evaluation.graph.search import SearchWeights
from evaluation.graph.search_graph import SearchGraph

PRIOR_SCALES = (0.0, 0.5, 1.0)
_SYMBOL_GRID: Mapping[str, Sequence[float]] = {
    "bigram_weight": (0.5, 0.75, 1.0, 1.5, 2.0),
    "insertion_penalty": (-1.0, 0.0, 1.0, 2.0),
}
_WORD_GRID: Mapping[str, Sequence[float]] = {
    "lm_weight": (0.5, 1.0, 1.5, 2.0, 2.5, 3.0),
    "word_score": (-2.0, -1.0, 0.0, 1.0, 2.0),
}
_TUNING_BEAM = 20.0

Weights = TypeVar("Weights", ViterbiConfig, WordSearchConfig)
CountErrors = Callable[[Sequence[SearchWeights]], Sequence[int]]
"""Errors on dev of a search with each of some weights."""


def tune_symbols(
    config: ViterbiConfig,
    decoder: DecoderName,
    graph: SearchGraph,
    scale: float,
    count_errors: CountErrors,
) -> ViterbiConfig:
    """The weights with the fewest symbol errors, found one weight after the other, twice.

    Args:
        config: the weights to start from, for the model's frames, as ``scale`` says.
        scale: of ``evaluation.decoding.time_scale``.
        count_errors: counts them on dev utterances.
    """

    def count(candidates: Sequence[ViterbiConfig]) -> Sequence[int]:
        return count_errors([symbol_weights(candidate, decoder) for candidate in candidates])

    return one_after_the_other(config, _grid(graph, _SYMBOL_GRID, scale), count)


def tune_words(
    config: WordSearchConfig, graph: SearchGraph, scale: float, count_errors: CountErrors
) -> WordSearchConfig:
    """The weights with the fewest word errors, found one weight after the other, twice.

    Args:
        config: the weights to start from, kept where others tie; the search is narrower than it.
        scale: as for symbols.
        count_errors: counts them on dev utterances.
    """

    def narrow(candidate: WordSearchConfig) -> SearchWeights:
        weights = word_weights(candidate)
        return weights.model_copy(update={"beam": min(weights.beam, _TUNING_BEAM * scale)})

    def count(candidates: Sequence[WordSearchConfig]) -> Sequence[int]:
        return count_errors([narrow(candidate) for candidate in candidates])

    return one_after_the_other(config, _grid(graph, _WORD_GRID, scale), count)


def _grid(
    graph: SearchGraph, weights: Mapping[str, Sequence[float]], scale: float
) -> Mapping[str, Sequence[float]]:
    """The prior scale too, where there is a prior."""
    grid = {name: [value * scale for value in values] for name, values in weights.items()}
    return {**grid, "prior_scale": PRIOR_SCALES} if graph.log_prior_O.any() else grid


def one_after_the_other(
    config: Weights,
    grid: Mapping[str, Sequence[float]],
    count_errors: Callable[[Sequence[Weights]], Sequence[int]],
) -> Weights:
    """The best value of each weight with the others as they are, twice over all weights.

    What was counted is not counted again; a weight stays as it is where others tie.
    """
    errors: dict[Weights, int] = {}
    for name in (*grid, *grid):
        candidates = [config]
        for value in grid[name]:
            candidates.append(config.model_copy(update={name: value}))
        new = [one for one in dict.fromkeys(candidates) if one not in errors]
        errors.update(zip(new, count_errors(new) if new else [], strict=True))
        # The first of the best: the present one, where others tie.
        config = min(candidates, key=errors.__getitem__)
    return config
