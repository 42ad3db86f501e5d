"""A client's stream inside a worker process: samples in, the client's messages out.

Shape legend: T frames, N neurons of all sites together.
"""

import json
import math
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from evaluation.engine.audio_file import BLOCK_S, AudioFile, open_audio
from evaluation.engine.description import EngineDescription, FrontEndConfig
from evaluation.engine.engine import Stream
from evaluation.engine.speaker import SpeakerStatistics
from evaluation.engine.transcriber import Transcriber, Transcription
from featurize.stage import PipelineError

Messages = list[str | bytes]
"""What a client is sent: JSON as text, spikes as bytes."""

_PARTIAL_EVERY_S = 0.4
_MAX_COLUMNS_PER_S = 50
_INT16_SCALE = 32768.0


def column_stride(description: EngineDescription) -> int:
    """Frames of the network from one column of the raster to the next."""
    return max(1, math.ceil(1 / (_MAX_COLUMNS_PER_S * description.frame_shift_s)))


class SpikeColumns:
    """Which neurons spiked, as bits, one column every few frames.

    Args:
        description: of the engine.
    """

    def __init__(self, description: EngineDescription) -> None:
        self._num_sites = len(description.site_sizes)
        self._stride = column_stride(description)
        self._num_columns = 0
        self._waiting: list[bytes] = []

    def watch(self, stream: Stream) -> None:
        """Look at the last frame of a stream."""
        if stream.num_frames % self._stride == 0:
            fired_N = np.concatenate([stream.spikes(site) != 0 for site in range(self._num_sites)])
            self._waiting.append(np.packbits(fired_N, bitorder="little").tobytes())

    def take(self) -> Messages:
        """The columns since the last call, in one message: the first one's number, then bits."""
        if not self._waiting:
            return []
        message = struct.pack("<I", self._num_columns) + b"".join(self._waiting)
        self._num_columns += len(self._waiting)
        self._waiting.clear()
        return [message]


class Session:
    """One stream of samples.

    Args:
        recogniser: whose engine and searches are shared.
        max_stream_s: longest stream.
        wants_spikes: whether columns of the raster are among the messages.
        front_end: how frames are made, where the speaker's statistics are known.
    """

    def __init__(
        self,
        recogniser: Transcriber,
        sample_rate_hz: int,
        max_stream_s: float,
        wants_spikes: bool = False,
        front_end: FrontEndConfig | None = None,
    ) -> None:
        self._max_samples = round(max_stream_s * sample_rate_hz)
        self._num_samples = 0
        self._columns = SpikeColumns(recogniser.description) if wants_spikes else None
        watch = None if self._columns is None else self._columns.watch
        self._transcriber = recogniser.another(sample_rate_hz, watch, front_end)
        self._told_s = time.monotonic()

    def feed(self, pcm: bytes) -> Messages:
        """Listen to signed 16-bit samples, little endian."""
        return self.feed_samples(np.frombuffer(pcm, "<i2").astype(np.float32) / _INT16_SCALE)

    def feed_samples(self, samples: NDArray[np.float32]) -> Messages:
        """Listen to samples in [-1, 1]."""
        self._num_samples += len(samples)
        if self._num_samples > self._max_samples:
            longest = self._max_samples / self._transcriber.sample_rate_hz
            raise PipelineError(f"longer than {longest:g} s, which is the limit; begin another")
        self._transcriber.feed(samples)
        messages = self._columns.take() if self._columns else []
        if time.monotonic() - self._told_s >= _PARTIAL_EVERY_S:
            messages.append(_as_message("partial", self._transcriber.so_far()))
            self._told_s = time.monotonic()
        return messages

    def finish(self) -> Messages:
        """End the stream."""
        heard = self._transcriber.result()
        return [*(self._columns.take() if self._columns else []), _as_message("final", heard)]


class FileSession:
    """A file of any format that soundfile reads, one block at a time.

    Where training normalised by speaker it is read twice, as ``transcribe`` does.

    Args:
        recogniser: whose engine and searches are shared.
        max_stream_s: longest recording.
    """

    def __init__(self, recogniser: Transcriber, path: str, max_stream_s: float) -> None:
        self._path = path
        self._opened = ExitStack()
        try:
            audio = self._opened.enter_context(open_audio(path))
            # A rate that cannot be converted is refused before anything is read.
            Session(recogniser, audio.sample_rate_hz, max_stream_s)
            self._steps = _steps(recogniser, audio, max_stream_s)
        except PipelineError as error:
            self.close()
            raise self._without_path(error) from None

    def read_on(self) -> tuple[Messages, bool]:
        """The messages of the next block, and whether that was the end."""
        try:
            messages = next(self._steps, None)
            return ([], True) if messages is None else (messages, False)
        except PipelineError as error:
            raise self._without_path(error) from None

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    def _without_path(self, error: PipelineError) -> PipelineError:
        return PipelineError(str(error).replace(self._path, "the file"))


def _steps(recogniser: Transcriber, audio: AudioFile, max_stream_s: float) -> Iterator[Messages]:
    """The messages of one block of a file after the other."""
    rate = audio.sample_rate_hz
    statistics = SpeakerStatistics(recogniser.front_end)
    for number, _ in enumerate(statistics.hear(audio.blocks, rate)):
        if number * BLOCK_S > max_stream_s:
            break  # it is refused below
        yield []
    session = Session(recogniser, rate, max_stream_s, front_end=statistics.front_end())
    for block in audio.blocks:
        yield session.feed_samples(block)
    yield session.finish()


def _as_message(kind: str, heard: Transcription) -> str:
    message = {
        "type": kind,
        "text": heard.text,
        "audio_s": round(heard.audio_s, 3),
        "busy_s": round(heard.busy_s, 4),
        "real_time_factor": round(heard.real_time_factor, 5),
        "multiplications": heard.executed.multiplications,
        "multiplications_per_s": round(heard.multiplications_per_s),
        "spike_density": [round(share, 4) for share in heard.executed.density],
    }
    return json.dumps(message)
