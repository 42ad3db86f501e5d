"""Which part of a recording an utterance is, in seconds, and in samples of that recording."""

from dataclasses import dataclass
from math import floor

from featurize.reject_reasons import RejectedUtterance

END_TOLERANCE_S = 0.02
"""A segment may end this far from its recording's end, and then ends there: tables round times."""


@dataclass(frozen=True)
class Segment:
    """A part of a recording."""

    start_s: float = 0.0  # where it begins, seconds
    duration_s: float | None = None  # how long it is, seconds; to the recording's end where None

    def bounds(self, num_frames: int, rate_hz: int) -> tuple[int, int]:
        """First sample, and the one after the last; times are rounded half up, as in lhotse.

        Args:
            num_frames: samples of the whole recording.
            rate_hz: its sample rate.

        Raises:
            RejectedUtterance: ``truncated_audio`` when the recording ends before the segment.

        Example:
            >>> Segment(0.5, 0.25).bounds(16_000, 16_000)
            (8000, 12000)
            >>> Segment(0.5, 0.49).bounds(16_000, 16_000)  # 10 ms short: to the end
            (8000, 16000)
        """
        start = _samples(self.start_s, rate_hz)
        stop = num_frames
        if self.duration_s is not None:
            stop = start + _samples(self.duration_s, rate_hz)
            if abs(stop - num_frames) <= END_TOLERANCE_S * rate_hz:
                stop = num_frames
        if not start < stop <= num_frames:
            end = "its end" if self.duration_s is None else f"{self.start_s + self.duration_s:g} s"
            raise RejectedUtterance(
                "truncated_audio",
                f"the segment from {self.start_s:g} s to {end} is not in a recording of "
                f"{num_frames / rate_hz:.2f} s",
            )
        return start, stop


def _samples(seconds: float, rate_hz: int) -> int:
    return floor(seconds * rate_hz + 0.5)
