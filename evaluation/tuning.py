"""Choosing the weights of the phone search and of the word search on the dev split."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from evaluation.config import ViterbiConfig, WordSearchConfig
from evaluation.decoding import phone_search
from evaluation.scoring import count_edits, scored_transcript
from evaluation.word_search import WordSearch
from featurize.schema import LabelInventory
from training.trained_model import TrainedModel

PRIOR_SCALES = (0.0, 0.5, 1.0)
_PHONE_GRID: Mapping[str, Sequence[float]] = {
    "bigram_weight": (0.5, 0.75, 1.0, 1.5, 2.0),
    "insertion_penalty": (-1.0, 0.0, 1.0, 2.0),
    "prior_scale": PRIOR_SCALES,
}
LM_WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.5)
WORD_SCORES = (-1.0, 0.0, 1.0, 2.0, 3.0)

Weights = TypeVar("Weights", ViterbiConfig, WordSearchConfig)


@dataclass(frozen=True)
class ScoredUtterance:
    """A dev utterance's scores (T, O), reference labels and words."""

    log_probs_TS: NDArray[np.float32]
    labels: Sequence[int]
    words: tuple[str, ...] = ()


def tune_viterbi(
    config: ViterbiConfig,
    recogniser: TrainedModel,
    utterances: Sequence[ScoredUtterance],
    labels: LabelInventory,
) -> ViterbiConfig:
    """The weights with the fewest phone errors, found one weight after the other, twice.

    Args:
        config: the weights to start from, and the smoothing.
        recogniser: the model, for its label statistics.
        utterances: dev utterances.
        labels: the label inventory, for what is scored.
    """
    references = [scored_transcript(u.labels, labels).symbols for u in utterances]

    def count_errors(candidate: ViterbiConfig) -> int:
        decoded = pool.map(
            phone_search(recogniser, candidate), [u.log_probs_TS for u in utterances]
        )
        return sum(
            count_edits(
                reference, scored_transcript(ids, recogniser.manifest.labels).symbols
            ).errors
            for ids, reference in zip(decoded, references, strict=True)
        )

    # The search through senones is compiled and holds no Python lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return _one_after_the_other(config, _PHONE_GRID, count_errors)


def tune_words(
    config: WordSearchConfig,
    utterances: Sequence[ScoredUtterance],
    search: Callable[[WordSearchConfig], WordSearch],
    *,
    has_prior: bool,
) -> WordSearchConfig:
    """The weights with the fewest word errors, found one weight after the other, twice.

    Args:
        config: the weights to start from, kept where others tie.
        utterances: dev utterances.
        search: makes the search with some weights.
        has_prior: choose the prior scale too (frame models).
    """
    grid: dict[str, tuple[float, ...]] = {"lm_weight": LM_WEIGHTS, "word_score": WORD_SCORES}
    if has_prior:
        grid = {"prior_scale": PRIOR_SCALES, **grid}

    def count_errors(candidate: WordSearchConfig) -> int:
        find = search(candidate)
        return sum(count_edits(u.words, find(u.log_probs_TS)).errors for u in utterances)

    return _one_after_the_other(config, grid, count_errors)


def _one_after_the_other(
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
