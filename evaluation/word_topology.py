"""How the outputs of a recogniser become the tokens of a word search, and follow one another.

Tokens are the symbols or, where a frame model's outputs are hidden Markov states, the parts of
symbols; then a twin of each (``evaluation.word_search`` says why); and last the blank. Parts follow
one another within the phone, none passed over. States that differ by their neighbours alone are
added up, because what stands beside a word is not known yet when the word is searched.

Shape legend: T frames, O outputs, S symbols, P parts of symbols, K = 2 P + 1 tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurize.schema import LabelInventory
from featurize.stage import PipelineError

FloatArray = NDArray[np.float32]

SILENCES = ("sil", "SIL")
IMPOSSIBLE = -1e4
_TINY = 1e-30
# As in the phone search, evaluation.viterbi: one seen once in one frame may still last, or come.
_SHORTEST_FRAMES, _PRIOR_SMOOTHING = 1.5, 0.5


@dataclass(frozen=True, eq=False)
class Topology:
    """How a recogniser's outputs follow one another.

    Attributes:
        is_ctc: outputs are the symbols and a blank; else one symbol a frame.
        parts_per_phone: tokens of a symbol in a spelling.
        silence: token that may stand between words.
        transitions: flat (K, K), score of going to the row's token from the column's; empty for
            CTC.
        emissions: scores (T, O) to token scores (T, K).
    """

    is_ctc: bool
    parts_per_phone: int
    silence: int
    transitions: list[float]
    emissions: Callable[[FloatArray], FloatArray]


def ctc_topology(labels: LabelInventory) -> Topology:
    """Tokens: the symbols, their twins, the blank; the blank or a space is between words."""
    num_symbols = len(labels.symbols)

    def emissions(log_probs_TO: FloatArray) -> FloatArray:
        symbols_TS = log_probs_TO[:, :num_symbols]
        return np.concatenate([symbols_TS, symbols_TS, log_probs_TO[:, num_symbols:]], axis=1)

    between = labels.word_boundary
    silence = 2 * num_symbols if between is None else between
    return Topology(True, 1, silence, [], emissions)


@dataclass(frozen=True, eq=False)
class FrameOutputs:
    """What the outputs of a frame model are.

    Attributes:
        phones: symbol id of each output.
        parts: which part of its phone each output is, from 0.
        frame_counts: (O,) training frames of each.
        bigram_counts: (S + 1, S + 1) of the training label sequences.
    """

    phones: NDArray[np.integer]
    parts: NDArray[np.integer]
    frame_counts: NDArray[np.integer]
    bigram_counts: NDArray[np.integer]


def frame_topology(labels: LabelInventory, outputs: FrameOutputs, prior_scale: float) -> Topology:
    """Tokens: the parts of symbols, their twins, and one that never is.

    Silence, which no word spells, is its first part alone, for all its outputs together.

    Args:
        labels: the recogniser's symbols.
        outputs: what the outputs are, and how often they were seen.
        prior_scale: share of the log prior taken off the log posterior.

    Raises:
        PipelineError: when there is no silence, which stands between words.
    """
    found = [number for number, symbol in enumerate(labels.symbols) if symbol in SILENCES]
    if not found:
        raise PipelineError(
            f"words need one of the symbols {', '.join(SILENCES)} among the labels of a frame "
            "model, for the pauses between them; turn word search off"
        )
    num_symbols, parts_per_phone = len(labels.symbols), int(outputs.parts.max()) + 1
    is_silence_O = outputs.phones == found[0]
    part_O = outputs.phones * parts_per_phone + np.where(is_silence_O, 0, outputs.parts)
    num_parts = num_symbols * parts_per_phone
    frames_P = np.zeros(num_parts)
    np.add.at(frames_P, part_O, outputs.frame_counts)
    occurrences_S = np.maximum(outputs.bigram_counts[:num_symbols].sum(1), 1)
    transitions_KK = _durations_as_transitions(frames_P, np.repeat(occurrences_S, parts_per_phone))
    prior_P = (frames_P + _PRIOR_SMOOTHING) / (frames_P + _PRIOR_SMOOTHING).sum()
    prior_P[frames_P == 0] = 1.0  # one that was never seen has no prior to take off
    belongs_OP = np.zeros((len(part_O), num_parts), np.float32)
    belongs_OP[np.arange(len(part_O)), part_O] = 1.0

    def emissions(log_probs_TO: FloatArray) -> FloatArray:
        posteriors_TP = np.exp(log_probs_TO) @ belongs_OP
        scores_TP = np.log(np.maximum(posteriors_TP, _TINY)) - prior_scale * np.log(prior_P)
        never_T1 = np.full((len(scores_TP), 1), IMPOSSIBLE)
        return np.concatenate([scores_TP, scores_TP, never_T1], axis=1).astype(np.float32)

    silence = found[0] * parts_per_phone
    return Topology(False, parts_per_phone, silence, transitions_KK.ravel().tolist(), emissions)


def _durations_as_transitions(
    frames_P: NDArray[np.floating], occurrences_P: NDArray[np.integer]
) -> NDArray[np.floating]:
    """Scores of going on from the column's token to the row's, which staying is part of.

    A part that lasts d frames on average stays with log(1 - 1 / d) and leaves with log(1 / d).
    """
    duration_P = np.maximum(frames_P / occurrences_P, _SHORTEST_FRAMES)
    stay_P, leave_P = np.log1p(-1.0 / duration_P), -np.log(duration_P)
    num_parts = len(frames_P)
    transitions_KK = np.tile(np.concatenate([leave_P, leave_P, [0.0]]), (2 * num_parts + 1, 1))
    parts = np.arange(num_parts)
    transitions_KK[parts, parts] = stay_P
    transitions_KK[num_parts + parts, parts] = stay_P
    return transitions_KK
