"""Reading an audio file of any format that soundfile knows, block by block."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import soundfile
from numpy.typing import NDArray

from featurize.stage import PipelineError

_BLOCK_S = 0.5
MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 192_000


@dataclass(frozen=True)
class AudioFile:
    """An open file.

    Attributes:
        sample_rate_hz: its own rate.
        blocks: mono samples, (n,) float32, several channels averaged.
    """

    sample_rate_hz: int
    blocks: Iterator[NDArray[np.float32]]


@contextmanager
def open_audio(path: str) -> Iterator[AudioFile]:
    """Open a file for reading in blocks.

    Raises:
        PipelineError: when it is not there or cannot be decoded.
    """
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise PipelineError(f"{path}: {error.strerror}") from None
    try:
        with soundfile.SoundFile(path) as sound:
            rate = sound.samplerate
            if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
                raise PipelineError(f"{path}: a sample rate of {rate} Hz")
            yield AudioFile(rate, _blocks(sound))
    except soundfile.LibsndfileError as error:
        raise PipelineError(f"{path}: {error.error_string.rstrip('.')}") from None


def _blocks(sound: soundfile.SoundFile) -> Iterator[NDArray[np.float32]]:
    size = max(1, round(_BLOCK_S * sound.samplerate))
    while True:
        samples = sound.read(size, dtype="float32", always_2d=True)
        if not len(samples):
            return
        yield samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
