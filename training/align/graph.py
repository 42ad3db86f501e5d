"""The best path of an utterance's frames through all ways to say its words.

An utterance is a graph of phones: every pronunciation of a word beside the others, and after each
word a silence that may be passed by. Each phone becomes its hidden Markov states in a row, in as
many variants as it can have neighbours where states know their context. Viterbi's algorithm finds
the best path; at least one frame is in every state on it.

Shape legend: t frames, N places of the graph (a place is one state of one phone there), U
different states among them, P phones on the path, K states per phone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.align.states import StateSequence
from training.kernels.jit import kernel

Pronunciations = Sequence[Sequence[int]]
"""Phone ids of each way to say a word, the first listed first."""

_OUTSIDE = -1


@dataclass(frozen=True, eq=False)
class PhoneTranscript:
    """The words of an utterance."""

    words: Sequence[Pronunciations]  # how each may be said
    # phone that may stand before, between and after words; None where silences are among the phones
    # already
    silence: int | None

    @classmethod
    def of_phones(cls, phones: NDArray[np.int32]) -> "PhoneTranscript":
        """Exactly these phones; silences are among them."""
        return cls([[phones.tolist()]], None)

    @property
    def plain_P(self) -> NDArray[np.int32]:
        """First pronunciations, with silence at both ends alone."""
        spoken = [phone for word in self.words for phone in word[0]]
        ends = [] if self.silence is None else [self.silence]
        return np.array([*ends, *spoken, *ends], np.int32)


@dataclass(frozen=True, eq=False)
class StateGraph:
    """Where an utterance's path can go."""

    used_U: NDArray[np.int64]  # the states there are, rising
    column_N: NDArray[np.int32]  # of each place, where its state stands among these
    phone_N: NDArray[np.int32]  # of each place, its phone
    part_N: NDArray[np.int32]  # which of the phone's K states it is
    variant_N: NDArray[np.int32]  # number of the phone in the graph; changes where a phone ends
    # of each place, first of its rows in ``sources``; one row more than places
    entry_N: NDArray[np.int32]
    sources: NDArray[np.int32]  # places before each place, itself aside; -1 is the start
    final_N: NDArray[np.bool_]  # whether the path may end there
    states_per_phone: int  # K


@dataclass(frozen=True, eq=False)
class Alignment:
    """Frames of an utterance laid out along its phones."""

    phones_P: NDArray[np.int32]  # the phones that were spoken, silences included
    # number of the state within the utterance's state sequence, int64; the phone's number is
    # ``places // K``
    places_t: NDArray[np.int64]
    score: float  # of the path, summed over frames


class _Phones:
    """The phones of an utterance, those before and after each, and its variants by neighbours."""

    def __init__(self, transcript: PhoneTranscript, *, knows_context: bool) -> None:
        self._knows_context = knows_context
        self.names: list[int] = []
        self.before: list[list[int]] = []
        silence = transcript.silence
        ends = [_OUTSIDE]
        if silence is not None:
            ends.append(self._add(silence, ends.copy()))
        for word in transcript.words:
            last = []
            for pronunciation in word:
                sources = ends
                for phone in pronunciation:
                    sources = [self._add(phone, sources)]
                last += sources
            ends = last if silence is None else [*last, self._add(silence, last)]
        self.after: list[list[int]] = [[] for _ in self.names]
        for number, sources in enumerate(self.before):
            for source in sources:
                if source != _OUTSIDE:
                    self.after[source].append(number)
        for number in ends:
            self.after[number].append(_OUTSIDE)

    def _add(self, phone: int, sources: list[int]) -> int:
        self.names.append(phone)
        self.before.append(sources)
        return len(self.names) - 1

    def as_neighbour(self, number: int) -> int:
        """What a phone is called beside another; all the same where neighbours do not matter."""
        is_nameless = number == _OUTSIDE or not self._knows_context
        return _OUTSIDE if is_nameless else self.names[number]

    def variants(self) -> list[tuple[int, int, int]]:
        """Number, left and right neighbour of each phone for all neighbours that it can have."""
        return [
            (number, left, right)
            for number in range(len(self.names))
            for left in sorted(set(map(self.as_neighbour, self.before[number])))
            for right in sorted(set(map(self.as_neighbour, self.after[number])))
        ]


def state_graph(
    transcript: PhoneTranscript, sequence: StateSequence, min_silence_frames: int
) -> StateGraph:
    """All paths of an utterance.

    Args:
        min_silence_frames: shortest silence.
    """
    phones = _Phones(transcript, knows_context=sequence.knows_context)
    variants = phones.variants()
    numbers_V, left_V, right_V = np.array(variants).T
    phone_V = np.array(phones.names, np.int32)[numbers_V]
    states_VK = sequence.in_context(left_V, phone_V, right_V)
    num_parts = states_VK.shape[1]
    longer = max(num_parts, min_silence_frames)
    length_V = np.where(phone_V == transcript.silence, longer, num_parts)
    variant_N = np.repeat(np.arange(len(variants), dtype=np.int32), length_V)
    end_V = np.cumsum(length_V)
    within_N = np.arange(len(variant_N)) - (end_V - length_V)[variant_N]
    part_N = (within_N * num_parts // length_V[variant_N]).astype(np.int32)
    used_U, column_N = np.unique(states_VK[variant_N, part_N], return_inverse=True)

    last = dict(zip(variants, (end_V - 1).tolist(), strict=True))
    sources_N: list[list[int]] = [[place - 1] for place in range(len(variant_N))]
    final_N = np.zeros(len(variant_N), bool)
    for (number, left, right), length in zip(variants, length_V.tolist(), strict=True):
        own, place = phones.as_neighbour(number), last[number, left, right]
        sources_N[place - length + 1] = [
            last.get((source, further, own), _OUTSIDE)
            for source in phones.before[number]
            if phones.as_neighbour(source) == left
            for further in _names_before(phones, source)
        ]
        final_N[place] = _OUTSIDE in phones.after[number] and right == _OUTSIDE
    return StateGraph(
        used_U,
        column_N.astype(np.int32),
        phone_V[variant_N],
        part_N,
        variant_N,
        np.cumsum([0, *map(len, sources_N)], dtype=np.int32),
        np.array([source for sources in sources_N for source in sources], np.int32),
        final_N,
        num_parts,
    )


def _names_before(phones: _Phones, number: int) -> list[int]:
    """Left neighbours of a phone, by name; one for the start, which has none."""
    if number == _OUTSIDE:
        return [_OUTSIDE]
    return sorted(set(map(phones.as_neighbour, phones.before[number])))


def best_path(scores_tU: NDArray[np.float32], graph: StateGraph) -> Alignment | None:
    """Lay an utterance's frames out along the best path.

    Args:
        scores_tU: score of each frame in each of the graph's states, natural logarithms.

    Returns:
        The alignment, or None where there are too few frames for any path.
    """
    num_frames, num_places = len(scores_tU), len(graph.column_N)
    came_from_tN = np.empty((num_frames, num_places), np.int32)
    total_N = np.empty((2, num_places))
    _search(scores_tU, graph.column_N, graph.entry_N, graph.sources, came_from_tN, total_N)
    ends_N = np.where(graph.final_N, total_N[(num_frames - 1) % 2], -np.inf)
    place = int(ends_N.argmax())
    if not ends_N[place] > -np.inf:
        return None
    path_t = np.empty(num_frames, np.int64)
    for frame in range(num_frames - 1, -1, -1):
        path_t[frame] = place
        place = came_from_tN[frame, place]
    begins_t = np.diff(graph.variant_N[path_t], prepend=-1) != 0
    numbers_t = np.cumsum(begins_t, dtype=np.int64) - 1
    return Alignment(
        graph.phone_N[path_t[begins_t]],
        numbers_t * graph.states_per_phone + graph.part_N[path_t],
        float(ends_N.max()),
    )


@kernel
def _search(scores_tU, column_N, entry_N, sources, came_from_tN, total_2N):  # type: ignore[no-untyped-def]
    """Fills in where each place was best reached from, and the totals of the last frame."""
    num_places = len(column_N)
    for frame in range(len(scores_tU)):
        old, new = total_2N[(frame + 1) % 2], total_2N[frame % 2]
        for place in range(num_places):
            best = old[place] if frame else -np.inf
            source = place
            for row in range(entry_N[place], entry_N[place + 1]):
                other = sources[row]
                score = -np.inf
                if other >= 0:
                    if frame:
                        score = old[other]
                elif frame == 0:
                    score = 0.0
                if score > best:
                    best, source = score, other
            came_from_tN[frame, place] = source
            new[place] = best + scores_tU[frame, column_N[place]]


def flat_places(num_frames: int, num_states: int) -> NDArray[np.int64] | None:
    """Every state equally long, the flat start; None where there are more states than frames."""
    if not 0 < num_states <= num_frames:
        return None
    return np.arange(num_frames, dtype=np.int64) * num_states // num_frames
