"""Which frames of a padded batch are real.

Shape legend: T time, B batch, H features, N = sum of lengths.
"""

import torch
from torch import Tensor


class ValidFrames:
    """The real frames of a time-major batch, for work that padding must not enter.

    Args:
        lengths_B: valid frames of each utterance, (B,) int64, on the batch's device.
        num_frames: T of the padded batch.
    """

    def __init__(self, lengths_B: Tensor, num_frames: int) -> None:
        self.lengths_B = lengths_B
        self.num_frames = num_frames
        self.batch_size = int(lengths_B.shape[0])
        mask_TB = torch.arange(num_frames, device=lengths_B.device).unsqueeze(1) < lengths_B
        self.is_full = bool(mask_TB.all())
        self.mask_TB1 = mask_TB.unsqueeze(2)
        self._index_N = None if self.is_full else mask_TB.flatten().nonzero().squeeze(1)

    def pack(self, x_TBH: Tensor) -> Tensor:
        """Valid frames only, (N, H)."""
        flat = x_TBH.reshape(self.num_frames * self.batch_size, -1)
        return flat if self._index_N is None else flat.index_select(0, self._index_N)

    def unpack(self, x_NH: Tensor) -> Tensor:
        """Back to (T, B, H), zero at padding frames."""
        shape = (self.num_frames, self.batch_size, x_NH.shape[1])
        if self._index_N is None:
            return x_NH.reshape(shape)
        padded = x_NH.new_zeros(self.num_frames * self.batch_size, x_NH.shape[1])
        return padded.index_copy(0, self._index_N, x_NH).reshape(shape)
