"""Scoring whole utterances in the event-driven engine, for an evaluation.

The compiled step holds no Python lock, so a thread per core runs its own utterances; each needs
the memory of one stream and of its own scores.

Shape legend: T frames, F features, O outputs.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import torch

from evaluation.engine.build import build_engine
from evaluation.engine.engine import Engine, Floats, log_softmax
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

    def score(features_TF: Floats) -> tuple[Floats, Activity]:
        stream = engine.stream()
        log_probs_TO = log_softmax(engine.advance(features_TF, stream))
        executed = stream.executed
        activity = Activity(executed.num_frames, executed.emitted, executed.fed_back)
        return log_probs_TO, activity

    def score_all(utterances: Iterable[Floats]) -> Iterator[tuple[Floats, Activity]]:
        """A few utterances at work at once; as many more wait with their results."""
        waiting, num_threads = iter(utterances), torch.get_num_threads()
        with ThreadPoolExecutor(num_threads, "spikeline-engine") as pool:
            running = [pool.submit(score, x_TF) for x_TF in islice(waiting, 2 * num_threads)]
            while running:
                yield running.pop(0).result()
                running += [pool.submit(score, x_TF) for x_TF in islice(waiting, 1)]

    return score_all
