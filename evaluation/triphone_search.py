"""The best phone sequence of a model of senones: every phone in its own context.

A path goes through triphones ``l-c+r``: phone ``c`` after ``l`` and before ``r``. Leaving it, the
next phone is ``r``, after ``c``; so the context of every state on the path is the true one, and
nothing is approximated. Triphones that share a senone share its score, not their history.

Shape legend: T frames, S senones, P phones, K states per phone. As a neighbour, P is the outside of
the utterance.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.kernels.jit import kernel

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]


@dataclass(frozen=True)
class TriphoneGraph:
    """Scores of all that a path may do, natural logarithms, float32.

    Attributes:
        table: (P + 1, P, P + 1, K) senone by left neighbour, phone, right neighbour, position.
        stay_PK: of remaining in a state for another frame.
        leave_PK: of leaving it.
        start_P: of beginning with a phone.
        change_PP: of the column's phone following the row's.
        end_P: of ending with a phone.
        may_skip: whether states may be passed over and a phone be entered and left at any, where
            frames are so far apart that phones have fewer frames than states.
    """

    table: IntArray
    stay_PK: FloatArray
    leave_PK: FloatArray
    start_P: FloatArray
    change_PP: FloatArray
    end_P: FloatArray
    may_skip: bool


def best_phones(emission_TS: FloatArray, graph: TriphoneGraph) -> tuple[list[int], float]:
    """The highest-scoring phone sequence (Viterbi 1967).

    Args:
        emission_TS: score of each frame in each senone.
        graph: the search graph.

    Returns:
        Phone ids and their score; none and minus infinity where there are fewer frames than a
        phone has states.
    """
    num_frames, num_phones = len(emission_TS), len(graph.start_P)
    if num_frames == 0:
        return [], -np.inf
    exit_PN, left_TPN, began_TPN = _search(
        np.ascontiguousarray(emission_TS, np.float32),
        graph.table,
        graph.stay_PK,
        graph.leave_PK,
        graph.start_P,
        graph.change_PP,
        graph.may_skip,
    )
    # The last phone has the outside to its right.
    final_P = exit_PN[:, num_phones] + graph.end_P
    phone, following, time = int(final_P.argmax()), num_phones, num_frames
    score = float(final_P[phone])
    if score == -np.inf:
        return [], score
    phones: list[int] = []
    while phone != num_phones:
        phones.append(phone)
        before = int(left_TPN[time, phone, following])
        time = int(began_TPN[time, phone, following])
        phone, following = before, phone
    return phones[::-1], score


@kernel
def _search(  # noqa: C901 - one compiled loop over frames, phones and both neighbours
    emission_TS: FloatArray,
    table: IntArray,
    stay_PK: FloatArray,
    leave_PK: FloatArray,
    start_P: FloatArray,
    change_PP: FloatArray,
    may_skip: bool,
) -> tuple[FloatArray, IntArray, IntArray]:
    """Advance every triphone over every frame.

    Returns:
        Score of leaving a phone after the last frame, by right neighbour, (P, P + 1); and for
        leaving before frame t, (T + 1, P, P + 1) each, the best left neighbour and the frame at
        which the phone was entered.
    """
    num_frames = emission_TS.shape[0]
    num_left, num_phones, num_right, num_states = table.shape
    never = np.float32(-np.inf)
    score = np.full((num_left, num_phones, num_right, num_states), never, np.float32)
    since = np.zeros((num_left, num_phones, num_right, num_states), np.int32)
    leaving = np.full((num_phones, num_right), never, np.float32)
    left_at = np.full((num_frames + 1, num_phones, num_right), num_phones, np.int32)
    began_at = np.zeros((num_frames + 1, num_phones, num_right), np.int32)
    for t in range(num_frames):
        for left in range(num_left):
            for phone in range(num_phones):
                for right in range(num_right):
                    # Entering at this frame: out of the phone before, which had this one to its
                    # right, or at the start of the utterance.
                    if left == num_phones:
                        entering = start_P[phone] if t == 0 else never
                    else:
                        entering = leaving[left, phone] + change_PP[left, phone]
                    for state in range(num_states - 1, -1, -1):
                        best = score[left, phone, right, state] + stay_PK[phone, state]
                        origin = since[left, phone, right, state]
                        lowest = 0 if may_skip else max(0, state - 1)
                        for earlier in range(lowest, state):
                            moved = score[left, phone, right, earlier] + leave_PK[phone, earlier]
                            if moved > best:
                                best, origin = moved, since[left, phone, right, earlier]
                        if (state == 0 or may_skip) and entering > best:
                            best, origin = entering, t
                        if best > never:
                            best += emission_TS[t, table[left, phone, right, state]]
                        score[left, phone, right, state] = best
                        since[left, phone, right, state] = origin
        for phone in range(num_phones):
            for right in range(num_right):
                best, before, begun = never, num_phones, 0
                for left in range(num_left):
                    first = 0 if may_skip else num_states - 1
                    for state in range(first, num_states):
                        left_now = score[left, phone, right, state] + leave_PK[phone, state]
                        if left_now > best:
                            best, before = left_now, left
                            begun = since[left, phone, right, state]
                leaving[phone, right] = best
                left_at[t + 1, phone, right] = before
                began_at[t + 1, phone, right] = begun
    return leaving, left_at, began_at
