"""The command that listens to this machine's microphone."""

import queue
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from featurize.stage import PipelineError
from flows.command import command
from flows.event_driven_commands import as_json_object, load_engine, say_what_it_is, summary
from flows.options import EngineSource
from flows.terminal import LiveLine

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK_S = 0.1
_MAX_WAITING_S = 5.0


def run_microphone(source: EngineSource, *, find_words: bool, as_json: bool) -> None:
    """Recognise speech from the microphone until Ctrl-C."""
    with command(as_json) as running:
        sounddevice = _sounddevice()
        from evaluation.engine.transcriber import Transcriber

        data = load_engine(source, find_words=find_words)
        say_what_it_is(source, data)
        transcriber = Transcriber(data, None, find_words)
        growing = LiveLine(sys.stderr)
        with _recording(sounddevice, transcriber.sample_rate_hz) as blocks:
            running.screen.console.print("listening; Ctrl-C ends")
            for block in blocks:
                transcriber.feed(block)
                heard = transcriber.so_far()
                growing.show(
                    f"[real-time factor {heard.real_time_factor:.3f}, "
                    f"{heard.multiplications_per_s / 1e6:.1f} M multiplications/s] {heard.text}"
                )
        growing.end()
        heard = transcriber.result()
        running.show(heard.text)
        running.finish(as_json_object("microphone", heard), summary([heard]))


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError:
        raise PipelineError(
            "--microphone needs the package sounddevice: pip install 'spikeline[microphone]'"
        ) from None
    except OSError as error:
        raise PipelineError(
            f"--microphone: {error}; on Debian and Ubuntu: apt install libportaudio2"
        ) from None
    return sounddevice


@contextmanager
def _recording(sounddevice: Any, rate: int) -> "Iterator[Iterator[NDArray[Any]]]":
    """Blocks of samples as they are heard, until Ctrl-C; all heard by then are among them."""
    # Unlike Queue's, its put may be called by a signal's handler.
    waiting: queue.SimpleQueue[NDArray[Any] | None] = queue.SimpleQueue()

    def heard(block: "NDArray[Any]", *_: object) -> None:
        waiting.put(block[:, 0].copy())

    def blocks() -> "Iterator[NDArray[Any]]":
        while (block := waiting.get()) is not None:
            if waiting.qsize() * _BLOCK_S > _MAX_WAITING_S:
                raise PipelineError(
                    "recognition is slower than speech here, and falls behind; use a smaller model "
                    "or --int8"
                )
            yield block

    try:
        stream = sounddevice.InputStream(
            samplerate=rate,
            channels=1,
            dtype="float32",
            blocksize=round(_BLOCK_S * rate),
            callback=heard,
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise PipelineError(f"--microphone: {error}; plug one in, and try again") from None
    before = signal.signal(signal.SIGINT, lambda *_: waiting.put(None))
    try:
        with stream:
            yield blocks()
    finally:
        signal.signal(signal.SIGINT, before)
