"""Tying the states of phones in context: a decision tree that asks about the neighbours.

Every position of every phone begins as one group of all its contexts. The group is split whose
best question about the left or right neighbour raises most the likelihood of the frames under a
Gaussian with diagonal covariance for each side, again and again (Young, Odell & Woodland, ARPA HLT
1994). The questions are found by the data, as in Kaldi's recipes: phones are merged by
least loss of the same likelihood, and every group on the way is a question, singles included.

Shape legend: t frames, D dimensions, C contexts, Q questions, N symbols.
"""

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurize.schema import StateInventory

FloatArray = NDArray[np.float64]
_VARIANCE_FLOOR = 1e-2


class ContextStatistics:
    """Counts and moments of the frames of every phone state, by the phone's neighbours.

    Args:
        num_symbols: N; as a neighbour, N is the outside of the utterance.
        num_dimensions: D.
    """

    def __init__(self, num_symbols: int, num_dimensions: int) -> None:
        self.num_symbols = num_symbols
        self._rows: dict[tuple[int, int, int, int], int] = {}
        self._moments = np.zeros((1024, 1 + 2 * num_dimensions))

    def add(
        self,
        x_tD: NDArray[np.float32],
        phones: NDArray[np.int32],
        places_t: NDArray[np.int64],
        states_per_phone: int,
        target_states_per_phone: int,
    ) -> None:
        """Take in an aligned utterance.

        Args:
            places_t: number of each frame's state within the utterance.
            states_per_phone: of the alignment.
            target_states_per_phone: of the states to be tied.
        """
        num_places = len(phones) * states_per_phone
        starts = np.searchsorted(places_t, np.arange(num_places))
        wide = x_tD.astype(np.float64)
        counts = np.diff(np.append(starts, len(places_t)))[:, None]
        sums = np.add.reduceat(np.concatenate([wide, wide**2], 1), starts)
        values = np.concatenate([counts, sums], 1)
        outside = self.num_symbols
        bounded = [outside, *phones.tolist(), outside]
        for place in range(num_places):
            number, part = divmod(place, states_per_phone)
            position = part * target_states_per_phone // states_per_phone
            key = (bounded[number + 1], position, bounded[number], bounded[number + 2])
            row = self._rows.setdefault(key, len(self._rows))
            if row == len(self._moments):
                self._moments = np.concatenate([self._moments, np.zeros_like(self._moments)])
            self._moments[row] += values[place]

    def contexts(self, phone: int, position: int) -> "Contexts":
        """What was seen of one state of a phone."""
        found = [
            (left, right, row)
            for (p, k, left, right), row in self._rows.items()
            if (p, k) == (phone, position)
        ]
        neighbours = np.array([(left, right) for left, right, _ in found], np.int64).reshape(-1, 2)
        return Contexts(neighbours, self._moments[[row for _, _, row in found]])

    def by_phone(self, num_positions: int) -> FloatArray:
        """Moments over all contexts, (N, K, 1 + 2 D)."""
        total = np.zeros((self.num_symbols, num_positions, self._moments.shape[1]))
        for (phone, position, _, _), row in self._rows.items():
            total[phone, position] += self._moments[row]
        return total


@dataclass(frozen=True, eq=False)
class Contexts:
    """Contexts of one phone state and their moments."""

    neighbours_C2: NDArray[np.int64]  # left and right neighbour
    moments: FloatArray  # (C, 1 + 2 D) count, sums and sums of squares

    def where(self, chosen_C: NDArray[np.bool_]) -> "Contexts":
        """Those chosen."""
        return Contexts(self.neighbours_C2[chosen_C], self.moments[chosen_C])


def log_likelihood(moments: FloatArray) -> FloatArray:
    """Of frames under their own Gaussian, less what does not depend on the grouping.

    ``-n/2 sum_d log var_d``.

    Args:
        moments: (..., 1 + 2 D).
    """
    num_dimensions = moments.shape[-1] // 2
    count = moments[..., :1]
    divisor = np.maximum(count, 1.0)
    mean = moments[..., 1 : 1 + num_dimensions] / divisor
    variance = moments[..., 1 + num_dimensions :] / divisor - mean**2
    likelihood: FloatArray = (
        -0.5 * count[..., 0] * np.log(np.maximum(variance, _VARIANCE_FLOOR)).sum(-1)
    )
    return likelihood


def find_questions(moments_NKX: FloatArray) -> list[frozenset[int]]:
    """Groups of phones that sound alike, by merging the two whose union costs least.

    Args:
        moments_NKX: (N, K, 1 + 2 D), compared position by position.

    Returns:
        Single phones, every union but the last, and N (the outside) alone.
    """
    groups: dict[frozenset[int], FloatArray] = {
        frozenset([phone]): moments for phone, moments in enumerate(moments_NKX)
    }
    questions = [*groups, frozenset([len(moments_NKX)])]
    costs = {
        frozenset(pair): _merging_cost(groups, *pair) for pair in itertools.combinations(groups, 2)
    }
    while len(groups) > 2:
        one, other = min(costs, key=lambda pair: (costs[pair], sorted(map(sorted, pair))))
        union = one | other
        moments = groups.pop(one) + groups.pop(other)
        costs = {pair: cost for pair, cost in costs.items() if not pair & {one, other}}
        groups[union] = moments
        questions.append(union)
        for group in groups:
            if group != union:
                costs[frozenset([group, union])] = _merging_cost(groups, group, union)
    return questions


def _merging_cost(
    groups: dict[frozenset[int], FloatArray], one: frozenset[int], other: frozenset[int]
) -> float:
    apart = log_likelihood(groups[one]).sum() + log_likelihood(groups[other]).sum()
    return float(apart - log_likelihood(groups[one] + groups[other]).sum())


@dataclass(frozen=True, eq=False)
class _Leaf:
    """A group of contexts: all pairs of a left and a right neighbour from two sets."""

    phone: int
    position: int
    left: frozenset[int]
    right: frozenset[int]
    contexts: Contexts


def tie_states(
    statistics: ContextStatistics,
    states_per_phone: int,
    num_senones: int,
    min_frames: int,
    context_free: Sequence[int] = (),
) -> StateInventory:
    """Grow the trees of all states together, largest gain first.

    Args:
        statistics: of the training frames.
        states_per_phone: K.
        num_senones: states to stop at; there are fewer where nothing more can be split.
        min_frames: fewest frames of a senone.
        context_free: phones that are not split (silence).
    """
    questions = _as_matrix(find_questions(statistics.by_phone(states_per_phone)), statistics)
    anyone = frozenset(range(statistics.num_symbols + 1))
    leaves: dict[int, _Leaf] = {}
    splits: list[tuple[float, int, tuple[_Leaf, _Leaf]]] = []
    numbers = itertools.count()

    def plant(leaf: _Leaf) -> None:
        number = next(numbers)
        leaves[number] = leaf
        best = None if leaf.phone in context_free else _best_split(leaf, questions, min_frames)
        if best is not None:
            gain, halves = best
            heapq.heappush(splits, (-gain, number, halves))

    for phone in range(statistics.num_symbols):
        for position in range(states_per_phone):
            contexts = statistics.contexts(phone, position)
            plant(_Leaf(phone, position, anyone, anyone, contexts))
    while splits and len(leaves) < num_senones:
        _, number, halves = heapq.heappop(splits)
        del leaves[number]
        for half in halves:
            plant(half)
    return _inventory(list(leaves.values()), states_per_phone, anyone)


def _as_matrix(
    questions: Sequence[frozenset[int]], statistics: ContextStatistics
) -> NDArray[np.bool_]:
    """(Q, N + 1): whether a neighbour is in a question's group."""
    matrix = np.zeros((len(questions), statistics.num_symbols + 1), bool)
    for row, group in enumerate(questions):
        matrix[row, sorted(group)] = True
    return matrix


def _best_split(
    leaf: _Leaf, questions_QN: NDArray[np.bool_], min_frames: int
) -> tuple[float, tuple[_Leaf, _Leaf]] | None:
    """The question with the largest gain that leaves enough frames on both sides."""
    contexts = leaf.contexts
    total = contexts.moments.sum(0)
    if len(contexts.moments) < 2 or total[0] < 2 * min_frames:
        return None
    best: tuple[float, int, int] | None = None
    for side in (0, 1):
        yes_QC = questions_QN[:, contexts.neighbours_C2[:, side]]
        yes = yes_QC.astype(np.float64) @ contexts.moments
        no = total - yes
        gains = log_likelihood(yes) + log_likelihood(no) - log_likelihood(total)
        gains[np.minimum(yes[:, 0], no[:, 0]) < max(1, min_frames)] = -np.inf
        question = int(gains.argmax())
        if best is None or gains[question] > best[0]:
            best = (float(gains[question]), side, question)
    assert best is not None
    gain, side, question = best
    if not gain > 0:
        return None
    group = frozenset(np.flatnonzero(questions_QN[question]).tolist())
    is_in_C = questions_QN[question, contexts.neighbours_C2[:, side]]
    halves = []
    for inside in (True, False):
        narrowed = [leaf.left, leaf.right]
        narrowed[side] = narrowed[side] & group if inside else narrowed[side] - group
        chosen = contexts.where(is_in_C == inside)
        halves.append(_Leaf(leaf.phone, leaf.position, narrowed[0], narrowed[1], chosen))
    return gain, (halves[0], halves[1])


def _inventory(
    leaves: Sequence[_Leaf], states_per_phone: int, anyone: frozenset[int]
) -> StateInventory:
    ordered = sorted(
        leaves, key=lambda leaf: (leaf.phone, leaf.position, sorted(leaf.left), sorted(leaf.right))
    )

    def named(neighbours: frozenset[int]) -> tuple[int, ...]:
        return () if neighbours == anyone else tuple(sorted(neighbours))

    return StateInventory(
        states_per_phone=states_per_phone,
        phones=tuple(leaf.phone for leaf in ordered),
        positions=tuple(leaf.position for leaf in ordered),
        left=tuple(named(leaf.left) for leaf in ordered),
        right=tuple(named(leaf.right) for leaf in ordered),
    )
