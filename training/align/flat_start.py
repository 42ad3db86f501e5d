"""Gaussian hidden Markov models of phones, from a flat start.

Nothing is known at first but which phones an utterance has, so its frames are shared out among
them evenly. Then, in turn, Gaussians are estimated on the alignment and the frames are aligned
anew by the Gaussians (Viterbi training; Young et al., *The HTK Book*). On the way principal
components give way to linear discriminants, and single Gaussians to mixtures. The first rounds see
the shorter half of the utterances, whose even shares are least wrong.

Shape legend: t frames, f features per frame, S states, P phones of a transcript.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurize.stage import PipelineError
from training.align.align_config import AlignConfig
from training.align.forced import Alignment, Transcript, align_utterance, flat_places
from training.align.gaussians import Mixtures, MixtureStatistics
from training.align.stacking import splice
from training.align.states import PhoneStates
from training.align.transforms import Projection, Scatter

logger = logging.getLogger(__name__)

RoundProgress = Callable[[int, int], None]
"""Called with (rounds done, rounds in all)."""


@dataclass(frozen=True)
class GaussianModel:
    """What scores frames by Gaussians.

    Attributes:
        context: neighbours on either side that a frame is joined with.
        projection: of joined frames.
        mixtures: of the states; phone p has the states p * K to p * K + K - 1.
        states_per_phone: K.
        log_likelihood: of the last alignment of the estimation utterances, per frame.
    """

    context: int
    projection: Projection
    mixtures: Mixtures
    states_per_phone: int
    log_likelihood: float

    def project(self, frames_tf: NDArray[np.float32]) -> NDArray[np.float32]:
        """Projected frames, (t, D)."""
        return self.projection(splice(frames_tf, self.context))

    def scores(self, frames_tf: NDArray[np.float32]) -> NDArray[np.float32]:
        """``log p(x | s)``, (t, S)."""
        return self.mixtures.log_likelihoods(self.project(frames_tf))


@dataclass(eq=False)
class EstimationUtterance:
    """An utterance to estimate on.

    Attributes:
        frames_tf: normalised frames, float16 to hold many.
        transcript: its phones.
        alignment: the current one; None before the first.
    """

    frames_tf: NDArray[np.float16]
    transcript: Transcript
    alignment: Alignment | None = None

    @property
    def wide_frames_tf(self) -> NDArray[np.float32]:
        """The frames in the precision of arithmetic."""
        return self.frames_tf.astype(np.float32)


def estimate_gaussians(
    utterances: Sequence[EstimationUtterance],
    num_phones: int,
    states_per_phone: int,
    min_silence_frames: int,
    config: AlignConfig,
    on_round: RoundProgress | None = None,
) -> GaussianModel:
    """Viterbi training from a flat start.

    Args:
        utterances: what to estimate on; their alignments are filled in.
        num_phones: phones there are, silence included.
        states_per_phone: K.
        min_silence_frames: shortest silence between words.
        config: rounds, mixtures, projection.
        on_round: called after every round.

    Raises:
        PipelineError: when no utterance has as many frames as states.
    """
    training = _ViterbiTraining(
        sorted(utterances, key=lambda u: len(u.frames_tf)),
        num_phones * states_per_phone,
        states_per_phone,
        min_silence_frames,
        config,
    )
    training.start_flat()
    for number in range(config.num_gaussian_rounds):
        log_likelihood = training.run_round(number)
        logger.info(
            "alignment round %d/%d: %d components a state, log likelihood %.2f a frame",
            number + 1,
            config.num_gaussian_rounds,
            training.num_components,
            log_likelihood,
        )
        if on_round is not None:
            on_round(number + 1, config.num_gaussian_rounds)
    return training.model()


class _ViterbiTraining:
    """The state of the rounds."""

    def __init__(
        self,
        utterances: Sequence[EstimationUtterance],
        num_states: int,
        states_per_phone: int,
        min_silence_frames: int,
        config: AlignConfig,
    ) -> None:
        self.utterances = utterances
        self.num_states = num_states
        self.sequence = PhoneStates(states_per_phone)
        self.min_silence_frames = min_silence_frames
        self.config = config
        self.num_components = 1
        self.log_likelihood = -np.inf
        rounds = config.num_gaussian_rounds
        self._discriminant_rounds = {rounds // 3, rounds // 2} - {0}
        self._split_rounds = _spread(rounds // 2 + 1, rounds - 1, config.num_mixtures)

    def start_flat(self) -> None:
        """Share each utterance's frames out evenly, silence at the ends alone."""
        for utterance in self.utterances:
            phones_P = utterance.transcript.without_optional().phones_P
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
        self.projection = self._scatter(self.utterances).principal_components(
            self.config.num_dimensions
        )
        self.mixtures: Mixtures | None = None

    def run_round(self, number: int) -> float:
        """Estimate on the current alignment, then align anew; returns the score per frame."""
        active = self.utterances
        if number < self.config.num_gaussian_rounds // 3:
            active = active[: -(-len(active) // 2)]
        if number in self._discriminant_rounds:
            self.projection = self._scatter(active).discriminants(self.config.num_dimensions)
            self.mixtures, self.num_components = None, 1
        self._estimate(active)
        if number in self._split_rounds and self.mixtures is not None:
            self.mixtures = self.mixtures.split()
            self.num_components *= 2
            self._estimate(active)
        # The round after the short utterances needs the long ones aligned.
        is_last_short = number + 1 == self.config.num_gaussian_rounds // 3
        self.log_likelihood = self._align(self.utterances if is_last_short else active)
        return self.log_likelihood

    def model(self) -> GaussianModel:
        """The result of the last round."""
        assert self.mixtures is not None
        return GaussianModel(
            self.config.context_frames,
            self.projection,
            self.mixtures,
            self.sequence.states_per_phone,
            self.log_likelihood,
        )

    def _states(self, utterance: EstimationUtterance) -> NDArray[np.int64]:
        assert utterance.alignment is not None
        return self.sequence(utterance.alignment.phones_P)[utterance.alignment.places_t]

    def _scatter(self, utterances: Sequence[EstimationUtterance]) -> Scatter:
        scatter: Scatter | None = None
        for utterance in utterances:
            spliced = splice(utterance.wide_frames_tf, self.config.context_frames)
            scatter = scatter or Scatter(spliced.shape[1], self.num_states)
            scatter.add(spliced, self._states(utterance))
        assert scatter is not None
        return scatter

    def _project(self, utterance: EstimationUtterance) -> NDArray[np.float32]:
        return self.projection(splice(utterance.wide_frames_tf, self.config.context_frames))

    def _estimate(self, utterances: Sequence[EstimationUtterance]) -> None:
        num_dimensions = self.projection.matrix_XD.shape[1]
        statistics = MixtureStatistics(self.num_states, self.num_components, num_dimensions)
        for utterance in utterances:
            x_tD, states_t = self._project(utterance), self._states(utterance)
            responsibilities = (
                np.ones((len(x_tD), 1), np.float32)
                if self.mixtures is None
                else self.mixtures.responsibilities(x_tD, states_t)
            )
            statistics.add(x_tD, states_t, responsibilities)
        self.mixtures = statistics.estimate(self.mixtures)

    def _align(self, utterances: Sequence[EstimationUtterance]) -> float:
        assert self.mixtures is not None
        score, num_frames = 0.0, 0
        for utterance in utterances:
            found = align_utterance(
                self.mixtures.log_likelihoods(self._project(utterance)),
                utterance.transcript,
                self.sequence,
                self.min_silence_frames,
            )
            assert found is not None, "an utterance that could be shared out can be aligned"
            utterance.alignment = found
            score += found.score
            num_frames += len(found.places_t)
        return score / num_frames


def _spread(first: int, stop: int, num_mixtures: int) -> frozenset[int]:
    """Rounds at which the components double, spread over the later rounds."""
    doublings = num_mixtures.bit_length() - 1
    return frozenset(np.linspace(first, max(first, stop - 1), doublings).round().astype(int))
