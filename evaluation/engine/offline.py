"""Whole utterances through the engine, several at a time: how an evaluation scores spiking models.

The compiled step holds no Python lock, so a thread per core runs its own utterances; each needs
the memory of one stream and of its own scores.

Shape legend: T frames, F features, O outputs.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

from evaluation.engine.counts import ExecutedCounts
from evaluation.engine.engine import Engine, Floats, log_softmax


class Scored(NamedTuple):
    """One utterance."""

    log_probs_TO: Floats  # log-probabilities of its frames
    executed: ExecutedCounts  # what it cost


def score(engine: Engine, features_TF: Floats) -> Scored:
    """Run one utterance from its beginning to its end."""
    stream = engine.stream()
    scores_TO = engine.advance(features_TF, stream)
    return Scored(log_softmax(scores_TO), stream.executed)


def score_all(engine: Engine, utterances: Iterable[Floats], num_threads: int) -> Iterator[Scored]:
    """Run utterances side by side; results come in their order.

    Args:
        engine: shared by all threads.
        utterances: (T, F) each, T may be 0.
        num_threads: utterances at work at once; as many more wait with their results.
    """
    waiting = iter(utterances)
    with ThreadPoolExecutor(num_threads, "spikeline-engine") as pool:
        running = [pool.submit(score, engine, x) for x in islice(waiting, 2 * num_threads)]
        while running:
            yield running.pop(0).result()
            for features_TF in islice(waiting, 1):
                running.append(pool.submit(score, engine, features_TF))
