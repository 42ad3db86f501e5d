"""What came of aligning one utterance.

Shape legend: T rows, P phones.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class AlignedLabels:
    """The labels and frame targets of an utterance."""

    labels_P: NDArray[np.int32]  # phones as spoken, silences included
    alignment_T: NDArray[np.int32]  # target of each row
    score: float  # of the alignment, per frame; 0 where it was taken from elsewhere


@dataclass(frozen=True)
class Unaligned:
    """Why an utterance has no alignment, for its row among the rejects."""

    reason: Literal["too_short", "missing_alignment", "bad_alignment"]
    detail: str
