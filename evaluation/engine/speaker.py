"""The statistics of a speaker whose speech is there as a whole, in files.

An evaluation normalises by the mean and deviation of all that a speaker said. Where files are
there from their beginning to their end, they are heard twice: once for these statistics, and once
to be recognised. A stream cannot be: see ``evaluation.engine.front_end.RunningNormaliser``.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from evaluation.engine.description import FrontEndConfig
from evaluation.engine.front_end import Floats, FrontEnd
from evaluation.engine.resampler import StreamResampler
from featurize.moments import MomentSums, RunningMoments, mean_and_std


class SpeakerStatistics:
    """Mean and deviation of the frames of some recordings.

    Args:
        config: how frames are made and normalised.
    """

    def __init__(self, config: FrontEndConfig) -> None:
        self._config = config
        self._moments = RunningMoments()

    @property
    def are_needed(self) -> bool:
        """Whether training normalised by speaker."""
        return self._config.cmvn == "speaker"

    def hear(self, blocks: Iterable[Floats], sample_rate_hz: int) -> Iterator[None]:
        """Take in a recording where its statistics are needed; a step for each block.

        What is heard counts once the recording has ended.

        Args:
            blocks: samples (n,) of one channel, in [-1, 1].
            sample_rate_hz: their rate.
        """
        if not self.are_needed:
            return
        resampler = StreamResampler(sample_rate_hz, self._config.sample_rate_hz)
        front_end = FrontEnd(self._config.model_copy(update={"cmvn": "none"}))
        recording = RunningMoments()
        for block in blocks:
            clipped = np.clip(block, -1.0, 1.0).astype(np.float32)
            _add(recording, front_end.feed(resampler.feed(clipped)))
            yield
        _add(recording, front_end.feed(resampler.finish()))
        _add(recording, front_end.finish())
        if recording.count:
            self._moments.add(recording.sums)

    def hear_whole(self, blocks: Iterable[Floats], sample_rate_hz: int) -> None:
        """The same in one step."""
        for _ in self.hear(blocks, sample_rate_hz):
            pass

    def front_end(self) -> FrontEndConfig:
        """How the frames of these recordings are made: normalised by their own statistics.

        The configuration as it was where training did not normalise by speaker, or not a frame
        was heard.
        """
        if not self.are_needed or not self._moments.count:
            return self._config
        mean, std = mean_and_std(self._moments.sums)
        return self._config.model_copy(update={"cmvn": "global", "mean": mean, "std": std})


def _add(moments: RunningMoments, frames_TF: Floats) -> None:
    if len(frames_TF):
        moments.add(MomentSums.of(frames_TF))
