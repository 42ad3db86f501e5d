"""The front: error rates of many recognisers against their multiplications per second of speech.

Every recogniser was scored in an evaluation of its own, on the same utterances; their frames may
differ, so that costs are compared by the second. Seeds of one entry count as one recogniser with
their mean errors and mean cost. Intervals are percentiles of a bootstrap, over utterances and,
because the utterances of a speaker resemble one another, over speakers; with few speakers the
latter is coarse.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from evaluation.chosen import read_evaluation
from evaluation.metrics import ModelMetrics
from evaluation.scoring import Bootstrap, Estimate, RateName
from featurize.stage import Location, PipelineError, read_manifest
from training.manifest import TrainManifest

COST_TOLERANCE = 0.10
"""A dense model may cost this share more than the model that it is compared with."""
NUM_RESAMPLINGS = 10_000
REFERENCE_TOLERANCE = 0.005
"""References of two feature sets may differ by this share of their symbols: each alignment says by
itself which pronunciation of a word was spoken."""


Aid = Literal["teacher", "pruning", "rounding", "masks"]
"""A trained network to learn from, weights that are left out, weights of few bits, a longer
training on masked features: what any family may have, so that one without is held against others
without."""


@dataclass(frozen=True)
class ScoredRun:
    """One trained recogniser with its errors on every utterance."""

    metrics: ModelMetrics  # what its evaluation says of it
    trained: TrainManifest  # its training's manifest
    utterances: tuple[str, ...]
    speakers: tuple[str, ...]  # speaker of each utterance
    errors: Mapping[RateName, NDArray[np.int64]]  # by rate, errors of each utterance
    lengths: Mapping[RateName, NDArray[np.int64]]  # by rate, reference symbols of each utterance

    @property
    def multiplications_per_s(self) -> float:
        """Audited, of a second of speech."""
        return self.metrics.audited_per_s

    @property
    def seed(self) -> int:
        """Of its training."""
        return self.trained.config.seed

    @property
    def look_ahead_s(self) -> float:
        """Speech that is heard after a frame before it is named."""
        return (self.trained.config.target_delay or 0) * self.metrics.frame_shift_s


def read_scored_run(evaluation: Location) -> ScoredRun:
    """Read the evaluation of one recogniser."""
    _, metrics = read_evaluation(evaluation)
    if len(metrics.models) != 1:
        raise PipelineError(
            f"{evaluation} scores {len(metrics.models)} models; the front needs one"
        )
    (model,) = metrics.models
    with evaluation.child("hypotheses.parquet").open_read() as stream:
        rows = sorted(pq.read_table(stream).to_pylist(), key=lambda row: str(row["utterance_id"]))
    columns: dict[RateName, tuple[str, str]] = {"per": ("errors", "reference_length")}
    if all(row["word_errors"] is not None for row in rows):
        columns["wer"] = ("word_errors", "num_words")
    return ScoredRun(
        metrics=model,
        trained=read_manifest(Location.of(model.run), TrainManifest),
        utterances=tuple(row["utterance_id"] for row in rows),
        speakers=tuple(row["speaker_id"] for row in rows),
        errors={rate: np.array([row[name] for row in rows]) for rate, (name, _) in columns.items()},
        lengths={
            rate: np.array([row[name] for row in rows]) for rate, (_, name) in columns.items()
        },
    )


@dataclass(frozen=True)
class FrontPoint:
    """One entry of the front over its seeds."""

    name: str  # unique among the points
    family: str  # name of its family
    budget_m: float  # millions of multiplications a second it was made for; 0 for none
    is_dense: bool  # whether every output of its layers counts
    tuned: str  # what was tuned, and how often
    runs: tuple[ScoredRun, ...]  # its seeds, of the same utterances
    # what it has beside its training on the targets (``Aid``)
    aids: frozenset[Aid] = frozenset()
    variant_of: str | None = None  # name of the entry of which a part is left out or rounded
    train_subsets: frozenset[str] = frozenset()  # of the corpus, that it was trained on

    @property
    def multiplications_per_s(self) -> float:
        """Mean over the seeds."""
        return float(np.mean([run.multiplications_per_s for run in self.runs]))

    def has(self, rate: RateName) -> bool:
        """Whether every seed was scored by this rate."""
        return all(rate in run.errors for run in self.runs)

    def mean_errors(self, rate: RateName) -> NDArray[np.float64]:
        """Errors of each utterance, mean over the seeds."""
        means: NDArray[np.float64] = np.mean([run.errors[rate] for run in self.runs], axis=0)
        return means

    def rate(self, rate: RateName) -> float:
        """The error rate, mean over the seeds."""
        return float(self.mean_errors(rate).sum() / self.runs[0].lengths[rate].sum())

    def place(self, rate: RateName) -> tuple[float, float]:
        """Cost and error."""
        return self.multiplications_per_s, self.rate(rate)

    def deviation(self, rate: RateName) -> float | None:
        """Standard deviation of the rate over the seeds; None of one."""
        if len(self.runs) < 2:
            return None
        rates = [run.errors[rate].sum() / run.lengths[rate].sum() for run in self.runs]
        return float(np.std(rates, ddof=1))


@dataclass(frozen=True)
class RateIntervals:
    """An estimate with its intervals."""

    by_utterance: Estimate  # value and 95% interval over utterances
    by_speaker: Estimate  # the same over speakers


def interval(point: FrontPoint, rate: RateName, other: FrontPoint | None = None) -> RateIntervals:
    """The error rate of a point, or how much it lies above another's, with intervals.

    Args:
        point: of the same utterances as ``other``.
        other: what is taken off, paired by utterance; None for nothing. Its errors count by its own
            references, which may be a little longer or shorter in all.
    """
    run = point.runs[0]
    errors, lengths = point.mean_errors(rate), run.lengths[rate]
    if other is not None:
        share = lengths.sum() / other.runs[0].lengths[rate].sum()
        errors = errors - share * other.mean_errors(rate)
    names = sorted(set(run.speakers))
    member = np.array([[speaker == name for speaker in run.speakers] for name in names], float)
    return RateIntervals(
        Bootstrap(len(errors), NUM_RESAMPLINGS, 0).error_rate(errors, lengths),
        Bootstrap(len(names), NUM_RESAMPLINGS, 0).error_rate(
            member @ errors, (member @ lengths).astype(np.int64)
        ),
    )


def check_same_utterances(points: Sequence[FrontPoint]) -> None:
    """All points are scored on the same utterances, by references of the same length in all."""
    runs = [run for point in points for run in point.runs]
    for run in runs[1:]:
        first = runs[0]
        if run.utterances != first.utterances or any(
            abs(run.lengths[rate].sum() / first.lengths[rate].sum() - 1.0) > REFERENCE_TOLERANCE
            for rate in run.lengths
            if rate in first.lengths
        ):
            raise PipelineError(
                f"{run.metrics.run} was scored on other utterances than {first.metrics.run}; "
                "score all on one split of one corpus"
            )


def rivals_of(point: FrontPoint, points: Sequence[FrontPoint]) -> list[FrontPoint]:
    """The points that a point is fairly held against: with no more aids, and no more speech."""
    return [
        other
        for other in points
        if other.aids <= point.aids and other.train_subsets <= point.train_subsets
    ]


def best_dense_within(
    points: Sequence[FrontPoint], cost: float, rate: RateName
) -> FrontPoint | None:
    """The dense point of the lowest error that costs ``cost`` or, within the tolerance, more."""
    limit = cost * (1.0 + COST_TOLERANCE)
    within = [p for p in points if p.is_dense and p.has(rate) and p.multiplications_per_s <= limit]
    return min(within, key=lambda p: p.rate(rate), default=None)


def cheapest_dense_as_good(
    points: Sequence[FrontPoint], error: float, rate: RateName
) -> FrontPoint | None:
    """The cheapest dense point whose error is not above ``error``."""
    as_good = [p for p in points if p.is_dense and p.has(rate) and p.rate(rate) <= error]
    return min(as_good, key=lambda p: p.multiplications_per_s, default=None)
