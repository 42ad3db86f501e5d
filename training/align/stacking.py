"""Feature rows as the frames they were joined from, and back.

Rows of stacked features are 20 ms or 30 ms apart, and phones shorter than that exist; the
frames inside them are 10 ms apart. So an alignment is found frame by frame, and a row gets what
is said at its middle frame: the same rule by which exact alignments are read off.

Shape legend: T rows, t frames before stacking, F features per row, f per frame.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurize.schema import FeaturizeManifest


@dataclass(frozen=True)
class Stacking:
    """How frames were joined into rows."""

    stack: int  # frames in a row
    stride: int  # frames between rows
    frame_shift_s: float  # seconds between frames

    @classmethod
    def of(cls, manifest: FeaturizeManifest) -> "Stacking":
        """The stacking of a feature set; rows between which frames were dropped count as frames."""
        stack, stride = (int(str(manifest.config.get(key, 1))) for key in ("stack", "stride"))
        if stride > stack or manifest.num_features % stack:
            return cls(1, 1, manifest.frame_shift_s)
        return cls(stack, stride, manifest.frame_shift_s / stride)

    def frames(self, rows_TF: NDArray[np.float32]) -> NDArray[np.float32]:
        """The frames the rows were joined from, (t, f)."""
        if self.stack == 1:
            return rows_TF
        split = rows_TF.reshape(len(rows_TF), self.stack, -1)
        body = split[:, : self.stride].reshape(-1, split.shape[2])
        return np.concatenate([body, split[-1, self.stride :]])

    def middle_frames(self, num_rows: int) -> NDArray[np.int64]:
        """The middle frame (the earlier of two) of each row, (T,)."""
        return np.arange(num_rows, dtype=np.int64) * self.stride + (self.stack - 1) // 2


def first_centre_s(manifest: FeaturizeManifest) -> float:
    """Time at the centre of the middle frame of a feature set's first row, seconds."""
    config = manifest.config
    stack, stride = (int(str(config.get(key, 1))) for key in ("stack", "stride"))
    middle_s = (stack - 1) // 2 * manifest.frame_shift_s / stride
    return float(str(config.get("frame_length_s", 0.025))) / 2 + middle_s


def splice(frames_tf: NDArray[np.float32], context: int) -> NDArray[np.float32]:
    """Join each frame with its neighbours, the outermost repeated: (t, (2 context + 1) f)."""
    padded = np.pad(frames_tf, ((context, context), (0, 0)), mode="edge")
    columns = [padded[k : k + len(frames_tf)] for k in range(2 * context + 1)]
    return np.concatenate(columns, axis=1)
