"""Choosing the weights of the search for symbols and of that for words on the dev split."""

from collections.abc import Callable, Mapping, Sequence

from evaluation.config import DecoderName, ViterbiConfig, WordSearchConfig
from evaluation.decoding import Weights, symbol_weights, word_weights
from evaluation.graph.search import SearchWeights
from evaluation.graph.search_graph import SearchGraph

PRIOR_SCALES = (0.0, 0.5, 1.0)
GRIDS: Mapping[type, Mapping[str, Sequence[float]]] = {
    ViterbiConfig: {
        "bigram_weight": (0.5, 0.75, 1.0, 1.5, 2.0),
        "insertion_penalty": (-1.0, 0.0, 1.0, 2.0),
    },
    WordSearchConfig: {
        "lm_weight": (0.5, 1.0, 1.5, 2.0, 2.5, 3.0),
        "word_score": (-2.0, -1.0, 0.0, 1.0, 2.0),
    },
}
"""Values that are tried of each weight, for frames of 30 ms."""
_TUNING_BEAM = 20.0

CountErrors = Callable[[Sequence[SearchWeights]], Sequence[int]]
"""Errors on dev of a search with each of some weights."""


def tune(
    config: Weights,
    decoder: DecoderName,
    graph: SearchGraph,
    scale: float,
    count_errors: CountErrors,
) -> Weights:
    """The weights with the fewest errors of symbols or words, one after the other, twice.

    Args:
        config: the weights to start from, for the model's frames, as ``scale`` says; kept where
            others tie. A search for words is narrower than it.
        decoder: how symbols are found.
        scale: of ``evaluation.decoding.time_scale``.
        count_errors: counts them on dev utterances.
    """

    def searched(candidate: Weights) -> SearchWeights:
        if isinstance(candidate, ViterbiConfig):
            return symbol_weights(candidate, decoder)
        weights = word_weights(candidate)
        return weights.model_copy(update={"beam": min(weights.beam, _TUNING_BEAM * scale)})

    def count(candidates: Sequence[Weights]) -> Sequence[int]:
        return count_errors([searched(candidate) for candidate in candidates])

    values: dict[str, Sequence[float]] = {
        name: [value * scale for value in values] for name, values in GRIDS[type(config)].items()
    }
    if graph.log_prior_O.any():
        values["prior_scale"] = PRIOR_SCALES
    return one_after_the_other(config, values, count)


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
