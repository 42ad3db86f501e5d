"""The commands around the event-driven engine: transcribe and export."""

import logging
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from featurize.stage import Location, PipelineError
from flows.command import command
from flows.options import EngineSource, Listening
from flows.terminal import LiveLine

if TYPE_CHECKING:
    from evaluation.engine.description import FrontEndConfig
    from evaluation.engine.engine_file import EngineData
    from evaluation.engine.transcriber import Transcription

_LOGGER = logging.getLogger(__name__)


def load_engine(source: EngineSource, *, find_words: bool = True) -> "EngineData":
    """The engine of an exported file, or of a training run."""
    from evaluation.published import engine_at, published_engine

    if source.is_file:
        _refuse(source.named(), f"{source.address} is an engine file, with all of its own")
        return engine_at(Location.of(source.address))
    from evaluation.engine_of_run import SearchChoice, engine_of_run

    choice = SearchChoice(source.evaluation, find_words)
    if source.features is None and source.evaluation is None:
        published = published_engine(Location.of(source.address))
        if published is not None:
            if source.int8 and published.description.precision != "int8":
                _refuse(["--int8"], f"the engine in {source.address} has float32 weights")
            return published
    return engine_of_run(source.address, source.precision, source.features, choice)


def _refuse(options: Sequence[str], because: str) -> None:
    """Raise where options were named that have no effect."""
    if options:
        raise PipelineError(
            f"{' and '.join(options)}: {because}; leave this out, or name a training run by --model"
        )


def say_what_it_is(source: EngineSource, data: "EngineData") -> None:
    """Log on what a model was trained, and which it is where none was named."""
    from evaluation.published import shipped_model

    if source.address == shipped_model().uri:
        _LOGGER.info("no --model is given: the one that comes with spikeline, %s", source.address)
    if data.description.trained_on:
        _LOGGER.info("%s", data.description.trained_on)


def run_transcribe(
    source: EngineSource, files: Sequence[str], listening: Listening, as_json: bool
) -> None:
    """Recognise audio files one after the other."""
    with command(as_json) as running:
        data = load_engine(source, find_words=not listening.symbols)
        say_what_it_is(source, data)
        listener = _Listener(data, listening, files)
        heard: dict[str, Transcription] = {}
        failed: dict[str, str] = {}
        for file in files:
            try:
                heard[file] = listener.transcribe(file)
            except PipelineError as error:
                if len(files) == 1:
                    raise
                failed[file] = str(error)
                _LOGGER.error("%s", error)
            else:
                running.show(f"{file}: {heard[file].text}" if len(files) > 1 else heard[file].text)
                for text, score in heard[file].nbest[1:]:
                    running.show(f"{score - heard[file].nbest[0][1]:8.2f}  {text}")
        running.finish(
            {
                "files": [as_json_object(*item) for item in heard.items()],
                "failed": [{"file": file, "error": said} for file, said in failed.items()],
            },
            summary(heard.values()),
        )
        if failed:
            raise PipelineError(
                f"{len(failed)} of {len(files)} files could not be recognised: {', '.join(failed)}"
            )


class _Listener:
    """Recognises files with one engine.

    Args:
        data: the engine.
        listening: how.
        files: all that it will be asked for.
    """

    def __init__(self, data: "EngineData", listening: Listening, files: Sequence[str]) -> None:
        from evaluation.engine.transcriber import Transcriber

        self._listening = listening
        self._transcriber = Transcriber(data, None, not listening.symbols)
        self._of_all: FrontEndConfig | None = None
        if listening.one_speaker:
            if "-" in files:
                raise PipelineError(
                    "--one-speaker reads every file twice, which standard input cannot be; "
                    "name files"
                )
            self._of_all = self._front_end_of(files)

    def _front_end_of(self, files: Sequence[str]) -> "FrontEndConfig":
        """How frames of one speaker's files are made; what cannot be read is named later."""
        from evaluation.engine.audio_file import open_audio
        from evaluation.engine.speaker import SpeakerStatistics

        statistics = SpeakerStatistics(self._transcriber.front_end)
        for file in files if statistics.are_needed else ():
            with suppress(PipelineError), open_audio(file) as audio:
                statistics.hear_whole(audio.blocks, audio.sample_rate_hz)
        return statistics.front_end()

    def transcribe(self, file: str) -> "Transcription":
        """Recognise a file, local, on S3, or standard input."""
        from evaluation.engine.audio_file import open_audio
        from evaluation.engine.speaker import SpeakerStatistics

        with open_audio(file) as audio:
            rate = audio.sample_rate_hz
            growing = LiveLine(sys.stderr)
            try:
                front_end = self._of_all
                if front_end is None:
                    statistics = SpeakerStatistics(self._transcriber.front_end)
                    statistics.hear_whole(audio.blocks, rate)
                    front_end = statistics.front_end()
                transcriber = self._transcriber.another(
                    rate, None, front_end, self._listening.nbest
                )
                for block in audio.blocks:
                    transcriber.feed(block)
                    if self._listening.stream:
                        growing.show(transcriber.so_far().text)
                return transcriber.result()
            except PipelineError as error:
                raise PipelineError(f"{file}: {error}") from None
            finally:
                growing.end()


def as_json_object(file: str, heard: "Transcription") -> dict[str, Any]:
    """What was heard, with its costs, for ``--json``."""
    return {
        "file": file,
        "text": heard.text,
        "symbols": list(heard.symbols),
        "words": None if heard.words is None else list(heard.words),
        "hypotheses": [{"text": text, "score": score} for text, score in heard.nbest],
        "confidences": [{"of": part, "confidence": sure} for part, sure in heard.confidences],
        "audio_s": heard.audio_s,
        "busy_s": heard.busy_s,
        "real_time_factor": heard.real_time_factor,
        "multiplications_per_s": heard.multiplications_per_s,
        "operations_per_s": heard.operations_per_s,
        "spike_density": list(heard.executed.density),
        "executed": [
            {
                "term": term.term,
                "multiplications": term.multiplications,
                "additions": term.additions,
                "weight_bytes": term.weight_bytes,
            }
            for term in heard.executed.terms()
        ],
    }


def summary(heard: "Collection[Transcription]") -> str:
    """How long it took, and how much was computed, in one line."""
    audio = sum(one.audio_s for one in heard)
    busy = sum(one.busy_s for one in heard)
    operations = sum(one.executed.operations for one in heard)
    if not audio:
        return "no audio"
    return (
        f"{audio:.1f} s of audio in {busy:.2f} s: real-time factor {busy / audio:.4f}, "
        f"{operations / audio / 1e6:.1f} million operations per second of audio"
    )


def run_export(
    source: EngineSource, out: str, file_format: str, as_json: bool, about: str | None = None
) -> None:
    """Write a model in a form that something else runs, or in one to give away.

    Args:
        source: the training run.
        out: file, or folder with the format ``folder``.
        file_format: ``engine``, ``onnx``, ``nir`` or ``folder``.
        as_json: print one JSON object.
        about: file of the author's part of the card, with the format ``folder``.
    """
    if about is not None and file_format != "folder":
        raise PipelineError("--about goes with --format folder, whose card it is a part of")
    with command(as_json) as running:
        if file_format == "folder":
            _publish(source, Location.of(out), about)
            running.finish({"folder": out, "format": file_format}, f"folder: {out}")
            return
        content = _exported(source, file_format)

        target = Location.of(out)
        target.write_bytes(content)
        running.finish(
            {"file": target.uri, "format": file_format, "bytes": len(content)},
            f"{file_format}: {target} ({len(content) / 2**20:.1f} MiB)",
        )


def _publish(source: EngineSource, out: Location, about: str | None) -> None:
    from evaluation.publish import publish

    if source.features is not None:
        raise PipelineError("--features: a model is published with the features it was trained on")
    text = "" if about is None else Location.of(about).read_bytes().decode()
    publish(Location.of(source.address), out, source.precision, source.evaluation, text)


def _exported(source: EngineSource, file_format: str) -> bytes:
    if file_format not in ("engine", "onnx", "nir"):
        raise PipelineError(f"--format {file_format}: use engine, folder, onnx or nir")
    idle = {"engine": (), "onnx": ("--int8", "--evaluation")}
    named = [option for option in source.named() if option in idle.get(file_format, source.named())]
    if named:
        raise PipelineError(
            f"{' and '.join(named)}: --format {file_format} does not use it; leave this out"
        )
    if file_format == "engine":
        from evaluation.engine.engine_file import write_engine

        return write_engine(load_engine(source))
    if file_format == "onnx":
        from evaluation.engine.onnx_export import onnx_step_model

        return onnx_step_model(load_engine(source, find_words=False))
    from evaluation.engine.build import build_engine
    from evaluation.engine.nir_export import nir_file
    from training.trained_model import load_model

    return nir_file(build_engine(load_model(Location.of(source.address))))
