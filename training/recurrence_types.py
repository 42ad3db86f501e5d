"""What every backend of the recurrence returns."""

from typing import Literal, NamedTuple

from torch import Tensor

from training.lif import LifState

Backend = Literal["auto", "reference", "cpu", "triton"]


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
