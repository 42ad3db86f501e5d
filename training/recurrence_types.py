"""What every backend of the recurrence returns."""

from typing import NamedTuple

from torch import Tensor

from training.lif import LifState


class RecurrenceOutput(NamedTuple):
    """A layer's recurrence over a sequence."""

    spikes_TBH: Tensor  # Y, zero at padding frames
    state: LifState  # the state after each utterance's last valid frame
    minimum: Tensor  # smallest valid membrane potential, scalar without gradient; +inf if no frame
    maximum: Tensor  # largest valid membrane potential, scalar without gradient; -inf if no frame
