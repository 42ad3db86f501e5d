"""Reading an audio file of any format that soundfile knows, block by block."""

import io
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import soundfile
from numpy.typing import NDArray

from featurize.audio_container import check_container
from featurize.rejected import RejectedUtterance
from featurize.stage import Location, PipelineError

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

    Args:
        path: of a file, local or on S3, or ``-`` for standard input.

    Raises:
        PipelineError: when it is not there, cannot be decoded, or ends before its header says.
    """
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(_opened(path))
            check_container(stream)
            stream.seek(0)
            # By path libsndfile reads the file itself, which is faster than through Python.
            source = stream if isinstance(stream, io.BytesIO) else path
            sound = stack.enter_context(soundfile.SoundFile(source))
            rate = sound.samplerate
            if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
                raise PipelineError(f"{path}: a sample rate of {rate} Hz")
            yield AudioFile(rate, _blocks(sound))
        except RejectedUtterance as error:
            raise PipelineError(f"{path}: {error}") from None
        except OSError as error:
            raise PipelineError(f"{path}: {error.strerror or error}") from None
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


def _blocks(sound: soundfile.SoundFile) -> Iterator[NDArray[np.float32]]:
    size = max(1, round(_BLOCK_S * sound.samplerate))
    while True:
        samples = sound.read(size, dtype="float32", always_2d=True)
        if not len(samples):
            return
        yield samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
