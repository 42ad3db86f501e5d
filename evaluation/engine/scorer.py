"""Scoring whole utterances in the event-driven engine, for an evaluation.

Shape legend: T frames, F features, O outputs.
"""

from collections.abc import Callable, Iterable, Iterator

import torch

from evaluation.engine.build import build_engine
from evaluation.engine.engine import Engine, Floats
from evaluation.engine.offline import score_all
from training.constants import UNQUANTIZED_BITS
from training.models.counting import Activity
from training.trained_model import TrainedModel

EventScorer = Callable[[Iterable[Floats]], Iterator[tuple[Floats, Activity]]]
"""Takes normalised features (T, F) of utterances; gives each one's log-probabilities (T, O) and
what was executed, in order."""


def event_scorer(recogniser: TrainedModel) -> EventScorer | None:
    """The scorer of a spiking recogniser; None where it does not quantise, so that all is dense."""
    if recogniser.network.config.num_bits == UNQUANTIZED_BITS:
        return None
    engine = Engine(build_engine(recogniser))

    def score(utterances: Iterable[Floats]) -> Iterator[tuple[Floats, Activity]]:
        for log_probs_TO, executed in score_all(engine, utterances, torch.get_num_threads()):
            yield log_probs_TO, Activity(executed.num_frames, executed.emitted, executed.fed_back)

    return score
