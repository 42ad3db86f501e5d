"""What every backend of the recurrence returns."""

from typing import NamedTuple

from torch import Tensor

from training.constants import Backend as Backend
from training.lif import LifState


class RecurrenceOutput(NamedTuple):
    """A layer's recurrence over a sequence.

    Attributes:
        spikes_TBH: Y, zero at padding frames.
        state: the state after each utterance's last valid frame.
        minimum: smallest valid membrane potential, scalar without gradient; +inf if no frame.
        maximum: largest valid membrane potential, scalar without gradient; -inf if no frame.
    """

    spikes_TBH: Tensor
    state: LifState
    minimum: Tensor
    maximum: Tensor
