"""The best path of an utterance's frames through the states of its transcript.

``torchaudio.functional.forced_align`` finds the best path through a sequence of CTC tokens. It
becomes an aligner of hidden Markov states in two moves: each place of the sequence is a token of
its own, so that equal neighbours need no blank between them, and the blank's score is minus
infinity, so that no frame is without a state.

Silence between words is optional. All of them are tried at once, each for at least one frame; those
shorter than a silence can be are taken out, and the rest is aligned again.

Shape legend: t frames, S states, P phones of a transcript, K states per phone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchaudio.functional import forced_align

from training.align.states import StateSequence


@dataclass(frozen=True, eq=False)
class Transcript:
    """The phones of an utterance, with a silence wherever one may be.

    Attributes:
        phones_P: phone ids, int32.
        is_optional_P: the silences between words.
    """

    phones_P: NDArray[np.int32]
    is_optional_P: NDArray[np.bool_]

    @classmethod
    def of_words(cls, words: list[list[int]], silence: int) -> "Transcript":
        """Silence at both ends, and optionally between words."""
        phones, optional = [silence], [False]
        for number, word in enumerate(words):
            if number:
                phones.append(silence)
                optional.append(True)
            phones.extend(word)
            optional.extend([False] * len(word))
        phones.append(silence)
        optional.append(False)
        return cls(np.array(phones, np.int32), np.array(optional))

    @classmethod
    def of_phones(cls, phones: NDArray[np.int32]) -> "Transcript":
        """Exactly these phones; silences are among them."""
        return cls(phones.astype(np.int32), np.zeros(len(phones), bool))

    def keeping(self, kept_P: NDArray[np.bool_]) -> "Transcript":
        """Only the phones where ``kept`` holds."""
        return Transcript(self.phones_P[kept_P], self.is_optional_P[kept_P])

    def without_optional(self) -> "Transcript":
        """No silence between words."""
        return self.keeping(~self.is_optional_P)


@dataclass(frozen=True, eq=False)
class Alignment:
    """Frames of an utterance laid out along its phones.

    Attributes:
        phones_P: the phones that were spoken, optional silences included where they were.
        places_t: number of the state within the utterance's state sequence, int64; the phone's
            number is ``places // K``.
        score: of the path, summed over frames.
    """

    phones_P: NDArray[np.int32]
    places_t: NDArray[np.int64]
    score: float


def best_places(
    scores_tS: NDArray[np.float32], states: NDArray[np.int64]
) -> tuple[NDArray[np.int64], float] | None:
    """The best monotonic path through a sequence of states, each for at least one frame.

    Args:
        scores_tS: score of each frame in each state, natural logarithms.
        states: the sequence.

    Returns:
        Place of each frame in the sequence, (t,), and the path's score; None where there are
        more states than frames.
    """
    if not 0 < len(states) <= len(scores_tS):
        return None
    emissions = np.empty((1, len(scores_tS), len(states) + 1), np.float32)
    emissions[0, :, 0] = -np.inf
    np.take(scores_tS, states, axis=1, out=emissions[0, :, 1:])
    tokens = torch.arange(1, len(states) + 1, dtype=torch.int32)[None]
    path, scores = forced_align(torch.from_numpy(emissions), tokens, blank=0)
    return path[0].numpy().astype(np.int64) - 1, float(scores.double().sum())


def align_utterance(
    scores_tS: NDArray[np.float32],
    transcript: Transcript,
    sequence: StateSequence,
    min_silence_frames: int,
) -> Alignment | None:
    """Lay an utterance's frames out along its phones.

    Args:
        scores_tS: scores of the states.
        transcript: the phones.
        sequence: the states of a sequence of phones, K for each.
        min_silence_frames: shortest silence between words.

    Returns:
        The alignment, or None where the utterance has too few frames for its phones.
    """
    states_per_phone = sequence.states_per_phone
    if transcript.is_optional_P.any():
        tried = best_places(scores_tS, sequence(transcript.phones_P))
        if tried is None:
            transcript = transcript.without_optional()
        else:
            places, _ = tried
            frames_P = np.bincount(places // states_per_phone, minlength=len(transcript.phones_P))
            long_enough = frames_P >= max(min_silence_frames, states_per_phone + 1)
            transcript = transcript.keeping(~transcript.is_optional_P | long_enough)
    found = best_places(scores_tS, sequence(transcript.phones_P))
    return None if found is None else Alignment(transcript.phones_P, *found)


def flat_places(num_frames: int, num_states: int) -> NDArray[np.int64] | None:
    """Every state equally long, the flat start; None where there are more states than frames."""
    if not 0 < num_states <= num_frames:
        return None
    return np.arange(num_frames, dtype=np.int64) * num_states // num_frames
