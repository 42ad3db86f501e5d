"""From the phones of an utterance to its sequence of hidden Markov states.

Shape legend: P phones of an utterance, K states per phone, N symbols.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from featurize.schema import StateInventory

Phones = NDArray[np.integer]

_MAX_TABLE = 2**26


class StateSequence(Protocol):
    """Says which states a phone has among its neighbours, each phone the same number of them."""

    @property
    def states_per_phone(self) -> int:
        """K."""
        ...

    @property
    def knows_context(self) -> bool:
        """Whether the neighbours matter."""
        ...

    def in_context(self, left_n: Phones, phone_n: Phones, right_n: Phones) -> NDArray[np.int64]:
        """States of each phone, (n, K); -1 as a neighbour is the outside of the utterance."""
        ...


def states_of(sequence: StateSequence, phones_P: NDArray[np.int32]) -> NDArray[np.int64]:
    """States of the phones of an utterance, (P * K,), in order."""
    left = np.concatenate([[-1], phones_P[:-1]])
    right = np.concatenate([phones_P[1:], [-1]])
    return sequence.in_context(left, phones_P, right).ravel()


@dataclass(frozen=True)
class PhoneStates:
    """States that know no context: phone p has the states p * K to p * K + K - 1."""

    states_per_phone: int
    knows_context: bool = False

    def in_context(self, left_n: Phones, phone_n: Phones, right_n: Phones) -> NDArray[np.int64]:
        """States of each phone, (n, K)."""
        first = phone_n.astype(np.int64) * self.states_per_phone
        return first[:, None] + np.arange(self.states_per_phone)


class ContextStates:
    """States by the phone and its two neighbours.

    Args:
        num_symbols: N.
    """

    knows_context = True

    def __init__(self, inventory: StateInventory, num_symbols: int) -> None:
        self.states_per_phone = inventory.states_per_phone
        self.table = state_table(inventory, num_symbols)

    def in_context(self, left_n: Phones, phone_n: Phones, right_n: Phones) -> NDArray[np.int64]:
        """States of each phone, (n, K); the outside is the table's last neighbour."""
        return np.asarray(self.table[left_n, phone_n, right_n], np.int64)


class FrameTargets:
    """The training target of every frame of an alignment.

    Args:
        inventory: the states to train on; None for the phones themselves.
        num_symbols: N.
    """

    def __init__(self, inventory: StateInventory | None, num_symbols: int) -> None:
        self._sequence: StateSequence = (
            PhoneStates(1) if inventory is None else ContextStates(inventory, num_symbols)
        )

    def __call__(
        self, phones_P: NDArray[np.int32], places_t: NDArray[np.int64], states_per_phone: int
    ) -> NDArray[np.int32]:
        """Target of each frame, (t,).

        Args:
            phones_P: the phones that were spoken.
            places_t: number of each frame's state in an alignment to them.
            states_per_phone: of that alignment; where it has more parts than the targets,
                neighbouring parts are one.
        """
        numbers, parts = np.divmod(places_t, states_per_phone)
        num_parts = self._sequence.states_per_phone
        positions = parts * num_parts // states_per_phone
        states = states_of(self._sequence, phones_P)
        return np.asarray(states[numbers * num_parts + positions], np.int32)


def state_table(inventory: StateInventory, num_symbols: int) -> NDArray[np.int32]:
    """The state of every phone in every context.

    Args:
        num_symbols: N.

    Returns:
        (N + 1, N, N + 1, K) by left neighbour, phone, right neighbour and position; N as a
        neighbour is the outside of the utterance.

    Raises:
        ValueError: when states overlap, leave a context out, or name what is not there.
    """
    size, num_parts = num_symbols + 1, inventory.states_per_phone
    if size * size * num_symbols * num_parts > _MAX_TABLE:
        raise ValueError(f"{num_symbols} symbols have too many contexts for a table of states")
    columns = (inventory.phones, inventory.positions, inventory.left, inventory.right)
    if len({len(column) for column in columns}) != 1:
        raise ValueError("a state inventory whose columns differ in length")
    table = np.full((size, num_symbols, size, num_parts), -1, np.int32)
    everyone = np.arange(size)
    for state, (phone, position, left, right) in enumerate(zip(*columns, strict=True)):
        if not (0 <= phone < num_symbols and 0 <= position < num_parts):
            raise ValueError(f"state {state} is of phone {phone}, part {position}: no such thing")
        rows = np.array(left) if left else everyone
        below = np.array(right) if right else everyone
        if min(rows.min(), below.min()) < 0 or max(rows.max(), below.max()) >= size:
            raise ValueError(f"state {state} is for neighbours that are not there")
        cells = np.ix_(rows, np.array([phone]), below, np.array([position]))
        if (table[cells] >= 0).any():
            raise ValueError(f"state {state} is for contexts that another has already")
        table[cells] = state
    if (table < 0).any():
        raise ValueError("a state inventory that leaves contexts out")
    return table


def phone_state_inventory(num_symbols: int, states_per_phone: int) -> StateInventory:
    """K states for each phone, whatever its neighbours; numbered as ``PhoneStates`` does."""
    every = [divmod(state, states_per_phone) for state in range(num_symbols * states_per_phone)]
    phones, positions = zip(*every, strict=True)
    return StateInventory.in_any_context(phones, states_per_phone, positions)
