"""Choosing the weights of the phone search on the dev split."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.config import ViterbiConfig
from evaluation.decoding import phone_search
from evaluation.scoring import count_edits, scored_transcript
from featurize.schema import LabelInventory
from training.checkpoint import Recogniser

BIGRAM_WEIGHTS = (0.5, 1.0, 2.0)
INSERTION_PENALTIES = (-1.0, 0.0, 1.0, 2.0)
PRIOR_SCALES = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class ScoredUtterance:
    """A dev utterance's scores (T, S) and reference labels."""

    log_probs_TS: NDArray[np.float32]
    labels: Sequence[int]


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
