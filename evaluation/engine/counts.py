"""What the engine executed, itemised as the evaluation audits it.

The compiled step counts the rows of weights that it adds up and the spikes that it lists; a row
costs a product and a sum for each output it reaches, a single-bit spike a sum
alone. Elementwise operations follow ``training.models.families`` term by term. With 8-bit weights
every output of every matrix is also multiplied once, by its scale: ``rescaling``, which an
audit of the float model does not have.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.engine.description import EngineDescription
from evaluation.engine.layout import lay_out
from training.constants import UNQUANTIZED_BITS

# Products of a layer's current per neuron and frame, and as many sums.
_CELL_OPERATIONS = {"conventional": 1, "v1": 2, "v2": 2, "v3": 2}


@dataclass(frozen=True)
class ExecutedTerm:
    """One term over the frames of a stream."""

    term: str  # as in ``training.models.counting``, or ``rescaling``
    num_rows: int  # rows of weights added up, one per spike; 0 for elementwise terms
    fan_out: int  # outputs a row reaches; 0 for elementwise terms
    multiplications: int
    additions: int
    weight_bytes: int  # memory of weights read, padding included


@dataclass(frozen=True)
class ExecutedCounts:
    """What a stream has cost so far."""

    description: EngineDescription
    num_frames: int
    rows_added: tuple[int, ...]  # per matrix of the layout
    emitted: tuple[int, ...]  # spikes per site, encoder first

    @classmethod
    def of(
        cls,
        description: EngineDescription,
        num_frames: int,
        rows_added: NDArray[np.int64],
        emitted: NDArray[np.int64],
    ) -> "ExecutedCounts":
        """Copy the counters of a state."""
        return cls(description, num_frames, tuple(rows_added.tolist()), tuple(emitted.tolist()))

    @property
    def fed_back(self) -> tuple[int, ...]:
        """Per layer: spikes that were multiplied by its recurrent weight one frame later."""
        return self.rows_added[1:-1:2]

    @property
    def density(self) -> tuple[float, ...]:
        """Share of non-zero outputs per site."""
        return tuple(
            count / max(1, size * self.num_frames)
            for count, size in zip(self.emitted, self.description.site_sizes, strict=True)
        )

    def terms(self) -> tuple[ExecutedTerm, ...]:
        """Every term: matrices, then ``elementwise``, then what 8-bit weights add."""
        itemsize = np.dtype(self.description.precision).itemsize
        is_binary = self.description.num_bits == 1
        terms = []
        for matrix, num_rows in zip(
            lay_out(self.description).matrices, self.rows_added, strict=True
        ):
            if matrix.width == 0:
                continue
            products = num_rows * matrix.fan_out
            terms.append(
                ExecutedTerm(
                    matrix.term,
                    num_rows,
                    matrix.fan_out,
                    0 if is_binary else products,
                    products,
                    num_rows * matrix.width * itemsize,
                )
            )
        # The feed-forward terms first, then the recurrent ones, as the evaluation lists them.
        terms.sort(key=lambda term: ("feed", "recu", "outp").index(term.term[:4]))
        encoded = self.description.projection_size
        if encoded is not None:
            num_rows = self.description.num_features * self.num_frames
            products = num_rows * encoded
            read = products * np.dtype(np.float32).itemsize
            terms.append(ExecutedTerm("projection", num_rows, encoded, products, products, read))
        terms.append(self._elementwise())
        if self.description.precision == "int8":
            outputs = sum(m.fan_out for m in lay_out(self.description).matrices if m.width)
            terms.append(ExecutedTerm("rescaling", 0, 0, outputs * self.num_frames, 0, 0))
        return tuple(terms)

    def _elementwise(self) -> ExecutedTerm:
        description = self.description
        neurons = description.num_layers * description.hidden_size * self.num_frames
        potentials = sum(description.site_sizes) * self.num_frames
        fired = sum(self.emitted)
        multiplications = _CELL_OPERATIONS[description.model] * neurons
        if description.num_bits not in (1, UNQUANTIZED_BITS):
            multiplications += potentials + fired
        if description.v3 is not None and description.v3.has_leak:
            multiplications += potentials
        additions = _CELL_OPERATIONS[description.model] * neurons + potentials + fired
        return ExecutedTerm("elementwise", 0, 0, multiplications, additions, 0)

    @property
    def multiplications(self) -> int:
        """Of the matrix terms: what the evaluation calls audited."""
        return sum(term.multiplications for term in self.terms() if term.fan_out)

    @property
    def operations(self) -> int:
        """Multiplications and additions of all terms."""
        return sum(term.multiplications + term.additions for term in self.terms())

    @property
    def weight_bytes(self) -> int:
        """Memory of weights read."""
        return sum(term.weight_bytes for term in self.terms())
