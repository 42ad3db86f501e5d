"""Reading an audio file of any format that soundfile knows, block by block."""

import io
import logging
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

logger = logging.getLogger(__name__)

_BLOCK_S = 0.5
# libsndfile's answer where the header leaves the length open.
_UNKNOWN_NUM_FRAMES = 2**62
MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 192_000


@dataclass(frozen=True)
class AudioFile:
    """An open file."""

    sample_rate_hz: int  # its own rate
    blocks: Iterator[NDArray[np.float32]]  # mono samples, (n,) float32, several channels averaged


@contextmanager
def open_audio(path: str) -> Iterator[AudioFile]:
    """Open a file for reading in blocks.

    Args:
        path: of a file, local or on S3, or ``-`` for standard input.
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
            if sound.frames >= _UNKNOWN_NUM_FRAMES:
                raise PipelineError(f"{path}: its header states no length; encode it again")
            if sound.frames <= 0:
                raise PipelineError(f"{path}: its header states that it holds no samples")
            yield AudioFile(rate, _blocks(path, sound))
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


def _blocks(path: str, sound: soundfile.SoundFile) -> Iterator[NDArray[np.float32]]:
    size = max(1, round(_BLOCK_S * sound.samplerate))
    num_read = 0
    while True:
        try:
            samples = sound.read(size, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise PipelineError(
                f"{path}: decoding stops after {num_read} of {sound.frames} samples "
                f"({error.error_string.rstrip('.')})"
            ) from None
        if not len(samples):
            break
        num_read += len(samples)
        yield samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if num_read < sound.frames:  # MP3 has no more to go by than an estimate
        states = "%s ends after %d of the %d samples that its header states"
        logger.warning(states, path, num_read, sound.frames)
