"""Where everything of an engine lies in its flat arrays.

Shape legend: L layers, K presynaptic neurons of a matrix, C columns of a row (fan-out, padded).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.engine.description import EngineDescription
from training.kernels.lanes import WIDE

COLUMNS = 64
"""Rows of weights are padded to this: four vectors of the widest, whole cache lines."""


def padded(size: int, multiple: int) -> int:
    """The next multiple."""
    return size + -size % multiple


@dataclass(frozen=True)
class Matrix:
    """One matrix: a row per presynaptic neuron."""

    term: str  # name of its term in the counts of multiplications
    num_rows: int  # K
    fan_out: int  # outputs, without padding
    num_drives: int  # drives per neuron above, each with its own block of columns
    block: int  # columns of a block, H padded to whole vectors, whichever of the lanes there are
    width: int  # C; 0 where there is no such matrix
    offset: int
    bias_offset: int


@dataclass(frozen=True)
class Layout:
    """Where every matrix, state and list of spikes of a network lies in its flat arrays."""

    matrices: tuple[Matrix, ...]  # W and U of every layer, then W_o
    # (L + 1, 3) int64: neurons, offset of the state, offset of the list of spikes
    sites: NDArray[np.int64]
    num_weights: int  # padding included
    num_biases: int  # padding included
    state_size: int  # floats of one state array
    list_size: int  # room of all lists of spikes

    @property
    def matrix_table(self) -> NDArray[np.int64]:
        """(2 L + 1, 3) offset, width, bias offset, as the compiled step reads them."""
        return np.array([(m.offset, m.width, m.bias_offset) for m in self.matrices], np.int64)

    @property
    def widest(self) -> int:
        """Longest row."""
        return max(matrix.width for matrix in self.matrices)


def lay_out(description: EngineDescription) -> Layout:
    """Assign every matrix and site its place."""
    hidden, drives = description.hidden_size, description.num_drives
    has_feedback = description.model in ("v2", "v3")
    matrices: list[Matrix] = []
    num_weights = num_biases = 0

    def add(term: str, num_rows: int, num_drives: int, size: int) -> None:
        nonlocal num_weights, num_biases
        block = padded(size, WIDE)
        width = padded(num_drives * block, COLUMNS) if num_rows else 0
        fan_out = num_drives * size
        matrices.append(
            Matrix(term, num_rows, fan_out, num_drives, block, width, num_weights, num_biases)
        )
        num_weights += num_rows * width
        num_biases += width

    below = description.site_sizes[0]
    for layer in range(1, description.num_layers + 1):
        add(f"feed_forward_{layer}", below, drives, hidden)
        add(f"recurrent_{layer}", hidden if has_feedback else 0, drives, hidden)
        below = hidden
    add("output", below, 1, description.num_outputs)
    sizes = description.site_sizes
    states = np.cumsum([0, *(padded(size, WIDE) for size in sizes)])
    lists = np.cumsum([0, *sizes])
    sites = np.stack([np.array(sizes), states[:-1], lists[:-1]], axis=1).astype(np.int64)
    return Layout(tuple(matrices), sites, num_weights, num_biases, int(states[-1]), int(lists[-1]))


def rows_at_once(num_bits: int) -> int:
    """How many products of an 8-bit weight (up to 127) and a level may be added in 16 bits.

    Args:
        num_bits: of a level and its sign.
    """
    top_level: int = max(1, 2 ** (num_bits - 1) - 1)
    at_once: int = min(8, 32767 // (127 * top_level))
    return max(1, at_once)
