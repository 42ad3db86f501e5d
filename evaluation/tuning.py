"""Choosing the weights of the phone search and of the word search on the dev split."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.config import ViterbiConfig, WordSearchConfig
from evaluation.decoding import phone_search
from evaluation.scoring import count_edits, scored_transcript
from evaluation.word_search import WordSearch
from featurize.schema import LabelInventory
from training.checkpoint import Recogniser

BIGRAM_WEIGHTS = (0.5, 1.0, 2.0)
INSERTION_PENALTIES = (-1.0, 0.0, 1.0, 2.0)
PRIOR_SCALES = (0.0, 0.5, 1.0)
LM_WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.5)
WORD_SCORES = (-1.0, 0.0, 1.0, 2.0, 3.0)


@dataclass(frozen=True)
class ScoredUtterance:
    """A dev utterance's scores (T, O), reference labels and words."""

    log_probs_TS: NDArray[np.float32]
    labels: Sequence[int]
    words: tuple[str, ...] = ()


def tune_viterbi(
    config: ViterbiConfig,
    recogniser: Recogniser,
    utterances: Sequence[ScoredUtterance],
    labels: LabelInventory,
) -> ViterbiConfig:
    """The grid point with the fewest phone errors; the configured one where it ties.

    Args:
        config: the weights to start from, and the smoothing.
        recogniser: the model, for its label statistics.
        utterances: dev utterances.
        labels: the label inventory, for what is scored.
    """
    references = [scored_transcript(u.labels, labels).symbols for u in utterances]

    def errors(candidate: ViterbiConfig) -> int:
        decoder = phone_search(recogniser, candidate)
        return sum(
            count_edits(
                reference,
                scored_transcript(decoder(u.log_probs_TS), recogniser.manifest.labels).symbols,
            ).errors
            for u, reference in zip(utterances, references, strict=True)
        )

    grid = itertools.product(BIGRAM_WEIGHTS, INSERTION_PENALTIES, PRIOR_SCALES)
    candidates = [config] + [
        config.model_copy(
            update={"bigram_weight": weight, "insertion_penalty": penalty, "prior_scale": scale}
        )
        for weight, penalty, scale in grid
    ]
    return min(candidates, key=errors)


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
    errors: dict[WordSearchConfig, int] = {}

    def count_errors(candidate: WordSearchConfig) -> int:
        if candidate not in errors:
            find = search(candidate)
            errors[candidate] = sum(
                count_edits(u.words, find(u.log_probs_TS)).errors for u in utterances
            )
        return errors[candidate]

    for name in (*grid, *grid):
        candidates = [config, *(config.model_copy(update={name: value}) for value in grid[name])]
        config = min(candidates, key=count_errors)
    return config
