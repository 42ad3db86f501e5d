"""Reading an audio file of any format that soundfile knows, block by block."""

import io
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import soundfile
from numpy.typing import NDArray

from featurize.audio_container import check_container
from featurize.reject_reasons import RejectedUtterance
from featurize.stage import Location, PipelineError

logger = logging.getLogger(__name__)

BLOCK_S = 0.5
"""Longest block of a file, in seconds."""
# libsndfile's answer where the header leaves the length open.
_UNKNOWN_NUM_FRAMES = 2**62
MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 192_000


@dataclass(frozen=True)
class AudioFile:
    """An open file."""

    sample_rate_hz: int  # its own rate
    # Mono samples, (n,) float32, several channels averaged; read anew, from the beginning, each
    # time that they are gone through.
    blocks: Iterable[NDArray[np.float32]]


@contextmanager
def open_audio(path: str) -> Iterator[AudioFile]:
    """Open a file for reading in blocks.

    Args:
        path: of a file, local or on S3, or ``-`` for standard input.
    """
    with ExitStack() as stack:
        try:
            try:
                stream = stack.enter_context(_opened(path))
                check_container(stream)
                stream.seek(0)
            except OSError as error:  # of this file; those of the caller's block are its own
                raise PipelineError(f"{path}: {error.strerror or error}") from None
            # By path libsndfile reads the file itself, which is faster than through Python.
            source = stream if isinstance(stream, io.BytesIO) else path
            sound = stack.enter_context(soundfile.SoundFile(source))
            rate = sound.samplerate
            if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
                raise PipelineError(f"{path}: a sample rate of {rate} Hz")
            if sound.frames >= _UNKNOWN_NUM_FRAMES:
                raise PipelineError(f"{path}: its header states no length; encode it again")
            if sound.frames <= 0:
                raise PipelineError(f"{path}: its header states that it holds no samples")
            yield AudioFile(rate, _Blocks(path, source))
        except RejectedUtterance as error:
            raise PipelineError(f"{path}: {error}") from None
        except soundfile.LibsndfileError as error:
            raise PipelineError(f"{path}: {error.error_string.rstrip('.')}") from None


def _opened(path: str) -> AbstractContextManager[IO[bytes]]:
    """A stream that can be sought in, as decoders need it."""
    if path == "-":
        return io.BytesIO(sys.stdin.buffer.read())
    if path.startswith("s3://"):
        return io.BytesIO(Location.of(path).read_bytes())
    if path.lower().endswith(".raw"):
        # By such a name soundfile would expect samples without a header.
        return io.BytesIO(Path(path).read_bytes())
    return open(path, "rb")


class _Blocks:
    """The samples of a file, from the beginning each time.

    Args:
        path: of the file, for messages.
        source: where it is read from.
    """

    def __init__(self, path: str, source: IO[bytes] | str) -> None:
        self._path = path
        self._source = source
        self._is_named = False

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        if not isinstance(self._source, str):
            self._source.seek(0)
        with soundfile.SoundFile(self._source) as sound:
            yield from self._blocks(sound)

    def _blocks(self, sound: soundfile.SoundFile) -> Iterator[NDArray[np.float32]]:
        size = max(1, round(BLOCK_S * sound.samplerate))
        num_read = 0
        while True:
            try:
                samples = sound.read(size, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise PipelineError(
                    f"{self._path}: decoding stops after {num_read} of {sound.frames} samples "
                    f"({error.error_string.rstrip('.')})"
                ) from None
            if not len(samples):
                break
            num_read += len(samples)
            yield samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
        if num_read < sound.frames and not self._is_named:  # MP3 has no more than an estimate
            self._is_named = True
            states = "%s ends after %d of the %d samples that its header states"
            logger.warning(states, self._path, num_read, sound.frames)
