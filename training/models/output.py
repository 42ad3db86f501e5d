"""What every recogniser returns.

Shape legend: T time, B batch, H neurons of a site, O outputs.
"""

from typing import NamedTuple

from torch import Tensor


class NetworkOutput(NamedTuple):
    """What a forward pass gives."""

    log_probs_TBO: Tensor  # log-softmax scores; arbitrary at padding frames
    # opaque recurrent state after each utterance's last frame, to be passed back in; LSTM and GRU
    # have none after a ragged batch in training
    state: tuple[tuple[Tensor, ...], ...]
    # what each site sends on, (T, B, H) each, zero at padding frames: the input encoder (for LSTM
    # and GRU the input itself), then every layer. Counting reads these.
    site_outputs: tuple[Tensor, ...]
