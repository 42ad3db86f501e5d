"""Gaussian hidden Markov models, from a flat start.

Nothing is known at first but which phones an utterance has, so its frames are shared out among
them evenly. Then, in turn, Gaussians are estimated on the alignment and the frames are aligned
anew by the Gaussians (Viterbi training; Young et al., *The HTK Book*). On the way principal
components give way to linear discriminants, and single Gaussians to mixtures. The first rounds see
the shorter half of the utterances, whose even shares are least wrong.

What is estimated is gathered block by block of utterances, each on its own, and merged in the
order of the blocks: the sums are the same whoever gathers them.

Shape legend: t frames, f features per frame, S states, P phones of a transcript.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from featurize.stage import PipelineError, Progress, available_cores
from training.align.align_config import AlignConfig
from training.align.gaussians import Mixtures, MixtureStatistics
from training.align.graph import (
    Alignment,
    PhoneTranscript,
    StateGraph,
    best_path,
    flat_places,
    state_graph,
)
from training.align.stacking import splice
from training.align.states import StateSequence, states_of
from training.align.transforms import Projection, Scatter

logger = logging.getLogger(__name__)

_BLOCK = 32
"""Utterances whose statistics are gathered together."""


@dataclass(frozen=True)
class GaussianModel:
    """What scores frames by Gaussians."""

    context: int  # neighbours on either side that a frame is joined with
    projection: Projection  # of joined frames
    mixtures: Mixtures  # of the states
    sequence: StateSequence  # the states of a phone
    log_likelihood: float  # of the last alignment of the estimation utterances, per frame

    def project(self, frames_tf: NDArray[np.float32]) -> NDArray[np.float32]:
        """Projected frames, (t, D)."""
        return self.projection(splice(frames_tf, self.context))

    def scores(
        self, frames_tf: NDArray[np.float32], states_U: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """``log p(x | s)`` of some states, (t, U)."""
        return self.mixtures.of_states(states_U).log_likelihoods(self.project(frames_tf))


@dataclass(eq=False)
class EstimationUtterance:
    """An utterance to estimate on."""

    frames_tf: NDArray[np.float16]  # normalised frames, float16 to hold many
    transcript: PhoneTranscript
    alignment: Alignment | None = None  # the current one; None before the first
    # its paths through the current states; made when first asked for
    graph: StateGraph | None = None

    @property
    def wide_frames_tf(self) -> NDArray[np.float32]:
        """The frames in the precision of arithmetic."""
        return self.frames_tf.astype(np.float32)


class _Mergeable(Protocol):
    def merge(self, other: Self) -> None: ...


StatisticsT = TypeVar("StatisticsT", bound=_Mergeable)


def gather(
    utterances: Sequence[EstimationUtterance],
    of_block: Callable[[Sequence[EstimationUtterance]], StatisticsT],
) -> StatisticsT:
    """Statistics of all utterances: of each block by itself, merged in order."""

    def merged(one: StatisticsT, other: StatisticsT) -> StatisticsT:
        one.merge(other)
        return one

    return reduce(merged, _each_block(utterances, of_block))


ResultT = TypeVar("ResultT")


def in_order(work: Callable[..., ResultT], *arguments: Sequence[Any]) -> Iterator[ResultT]:
    """As ``map``, on all cores."""
    with ThreadPoolExecutor(available_cores()) as pool:
        yield from pool.map(work, *arguments)


def _each_block(
    utterances: Sequence[EstimationUtterance],
    work: Callable[[Sequence[EstimationUtterance]], ResultT],
) -> Iterator[ResultT]:
    return in_order(work, [utterances[i : i + _BLOCK] for i in range(0, len(utterances), _BLOCK)])


class ViterbiTraining:
    """Rounds of estimating Gaussians and aligning anew.

    Args:
        utterances: what to estimate on; their alignments are filled in.
        num_phones: phones there are, silence included.
        min_silence_frames: shortest silence.
        on_round: called after every round.
    """

    def __init__(
        self,
        utterances: Sequence[EstimationUtterance],
        num_phones: int,
        sequence: StateSequence,
        min_silence_frames: int,
        config: AlignConfig,
        on_round: Progress | None = None,
    ) -> None:
        self.utterances = sorted(utterances, key=lambda u: len(u.frames_tf))
        self.sequence = sequence
        self._num_states = num_phones * sequence.states_per_phone
        self._min_silence_frames = min_silence_frames
        self._config = config
        self._on_round = on_round
        self._num_components = 1
        self._log_likelihood = -np.inf
        self._mixtures: Mixtures | None = None
        self._start_flat()

    def _start_flat(self) -> None:
        """Share each utterance's frames out evenly, silence at the ends alone."""
        for utterance in self.utterances:
            phones_P = utterance.transcript.plain_P
            num_states = len(phones_P) * self.sequence.states_per_phone
            places = flat_places(len(utterance.frames_tf), num_states)
            if places is not None:
                utterance.alignment = Alignment(phones_P, places, 0.0)
        self.utterances = [u for u in self.utterances if u.alignment is not None]
        if not self.utterances:
            raise PipelineError(
                "no training utterance has as many frames as its phones have states; check the "
                "transcripts, or featurize with a smaller frame shift"
            )
        self._projection = self._scatter(self.utterances).principal_components(
            self._config.num_dimensions
        )

    def run(self) -> GaussianModel:
        """Rounds over phones without context."""
        rounds = self._config.num_gaussian_rounds
        discriminant_rounds = {rounds // 3, rounds // 2} - {0}
        split_rounds = _spread(rounds // 2 + 1, rounds - 1, self._config.num_mixtures)
        for number in range(rounds):
            active = self.utterances
            if number < rounds // 3:
                active = active[: -(-len(active) // 2)]
            if number in discriminant_rounds:
                self._discriminate(active)
            self._estimate(active)
            if number in split_rounds:
                self._split(active)
            # The round after the short utterances needs the long ones aligned.
            self._align(self.utterances if number + 1 == rounds // 3 else active)
            self._tell(number)
        return self.model()

    def run_in_context(self, sequence: StateSequence, num_states: int) -> GaussianModel:
        """More rounds, over states that know their neighbours.

        Args:
            num_states: how many there are.
        """
        self.sequence, self._num_states = sequence, num_states
        for utterance in self.utterances:
            utterance.graph = None
        rounds = self._config.num_context_rounds
        self._discriminate(self.utterances)
        self._estimate(self.utterances)
        split_rounds = _spread(0, max(1, rounds - 1), self._config.num_mixtures)
        for number in range(rounds):
            if number in split_rounds:
                self._split(self.utterances)
            self._align(self.utterances)
            self._estimate(self.utterances)
            self._tell(self._config.num_gaussian_rounds + number)
        return self.model()

    def _tell(self, number: int) -> None:
        logger.info(
            "alignment round %d: %d states, %d components each, log likelihood %.2f a frame",
            number + 1,
            self._num_states,
            self._num_components,
            self._log_likelihood,
        )
        if self._on_round is not None:
            rounds = self._config.num_gaussian_rounds + self._config.num_context_rounds
            self._on_round(number + 1, rounds)

    def model(self) -> GaussianModel:
        """The result of the last round."""
        assert self._mixtures is not None
        return GaussianModel(
            self._config.context_frames,
            self._projection,
            self._mixtures,
            self.sequence,
            self._log_likelihood,
        )

    def _states(self, utterance: EstimationUtterance) -> NDArray[np.int64]:
        assert utterance.alignment is not None
        states = states_of(self.sequence, utterance.alignment.phones_P)
        return states[utterance.alignment.places_t]

    def _spliced(self, utterance: EstimationUtterance) -> NDArray[np.float32]:
        return splice(utterance.wide_frames_tf, self._config.context_frames)

    def _scatter(self, utterances: Sequence[EstimationUtterance]) -> Scatter:
        num_features = self._spliced(utterances[0]).shape[1]

        def of_block(block: Sequence[EstimationUtterance]) -> Scatter:
            scatter = Scatter(num_features, self._num_states)
            for utterance in block:
                scatter.add(self._spliced(utterance), self._states(utterance))
            return scatter

        return gather(utterances, of_block)

    def _discriminate(self, utterances: Sequence[EstimationUtterance]) -> None:
        self._projection = self._scatter(utterances).discriminants(self._config.num_dimensions)
        self._mixtures, self._num_components = None, 1

    def _split(self, utterances: Sequence[EstimationUtterance]) -> None:
        assert self._mixtures is not None
        self._mixtures = self._mixtures.split()
        self._num_components *= 2
        self._estimate(utterances)

    def _estimate(self, utterances: Sequence[EstimationUtterance]) -> None:
        before, num_dimensions = self._mixtures, self._projection.matrix_XD.shape[1]

        def of_block(block: Sequence[EstimationUtterance]) -> MixtureStatistics:
            statistics = MixtureStatistics(self._num_states, self._num_components, num_dimensions)
            for utterance in block:
                x_tD, states_t = (
                    self._projection(self._spliced(utterance)),
                    self._states(utterance),
                )
                responsibilities = (
                    np.ones((len(x_tD), 1), np.float32)
                    if before is None
                    else before.responsibilities(x_tD, states_t)
                )
                statistics.add(x_tD, states_t, responsibilities)
            return statistics

        self._mixtures = gather(utterances, of_block).estimate(before)

    def _align(self, utterances: Sequence[EstimationUtterance]) -> None:
        model = self.model()

        def of_block(block: Sequence[EstimationUtterance]) -> tuple[float, int]:
            score, num_frames = 0.0, 0
            for utterance in block:
                graph = utterance.graph or state_graph(
                    utterance.transcript, self.sequence, self._min_silence_frames
                )
                utterance.graph = graph
                found = best_path(model.scores(utterance.wide_frames_tf, graph.used_U), graph)
                assert found is not None, "an utterance that could be shared out can be aligned"
                utterance.alignment = found
                score += found.score
                num_frames += len(found.places_t)
            return score, num_frames

        scores, counts = zip(*_each_block(utterances, of_block), strict=True)
        self._log_likelihood = sum(scores) / sum(counts)


def _spread(first: int, stop: int, num_mixtures: int) -> frozenset[int]:
    """Rounds at which the components double, spread over the later rounds."""
    doublings = num_mixtures.bit_length() - 1
    return frozenset(np.linspace(first, max(first, stop - 1), doublings).round().astype(int))
