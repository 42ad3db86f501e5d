"""The commands around the event-driven engine: listen and export."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurize.stage import PipelineError
from flows.command import command

if TYPE_CHECKING:
    from evaluation.engine.decoding import WordFinder
    from evaluation.engine.engine_file import EngineData
    from evaluation.engine.recognizer import Transcription

_LOGGER = logging.getLogger(__name__)

ENGINE_SUFFIX = ".spikes"
SPEAKER_NOTE = (
    "trained on features normalised by speaker; no speaker is known here, so the mean and "
    "deviation of the training set stand in, and more errors are to be expected"
)


def load_engine(model: str, features: str | None, precision: str) -> "EngineData":
    """The engine of an exported file, or of a training run.

    Raises:
        PipelineError: when it cannot be loaded.
    """
    if _is_engine_file(model):
        from evaluation.engine.engine_file import read_engine

        return read_engine(model)
    from evaluation.engine.from_run import engine_of_run

    return engine_of_run(model, "int8" if precision == "int8" else "float32", features)


def _is_engine_file(model: str) -> bool:
    return model.endswith(ENGINE_SUFFIX) or Path(model).is_file()


def run_transcribe(
    model: str,
    files: Sequence[str],
    features: str | None,
    words: str | None,
    precision: str,
    stream: bool,
    as_json: bool,
) -> None:
    """Recognise audio files one after the other."""
    with command(as_json) as running:
        data = load_engine(model, features, precision)
        finder = None if words is None else _word_finder(model, words)
        front_end = data.description.front_end
        if front_end is not None and front_end.cmvn == "speaker":
            _LOGGER.warning("%s", SPEAKER_NOTE)
        heard = {}
        for file in files:
            heard[file] = _transcribe(data, file, finder, stream)
        running.finish(
            {"files": [_as_json(*item) for item in heard.items()]},
            *(f"{file}: {one.text}" if len(heard) > 1 else one.text for file, one in heard.items()),
            _summary(heard),
        )


def _word_finder(model: str, evaluation: str) -> "WordFinder":
    if _is_engine_file(model):
        raise PipelineError(
            f"--words needs the training run that {model} was exported from: name it by --model"
        )
    from evaluation.engine.from_run import words_of_run

    return words_of_run(model, evaluation)


def _transcribe(
    data: "EngineData", file: str, words: "WordFinder | None", stream: bool
) -> "Transcription":
    from evaluation.engine.audio_file import open_audio
    from evaluation.engine.recognizer import Recognizer

    with open_audio(file) as audio:
        recognizer = Recognizer(data, audio.sample_rate_hz, words)
        shown = ""
        try:
            for block in audio.blocks:
                recognizer.feed(block)
                if stream and (partial := recognizer.partial()) != shown:
                    sys.stderr.write(f"... {partial}\n")
                    shown = partial
            return recognizer.result()
        except PipelineError as error:
            raise PipelineError(f"{file}: {error}") from None


def _as_json(file: str, heard: "Transcription") -> dict[str, Any]:
    return {
        "file": file,
        "text": heard.text,
        "symbols": list(heard.symbols),
        "words": None if heard.words is None else list(heard.words),
        "audio_s": heard.audio_s,
        "busy_s": heard.busy_s,
        "real_time_factor": heard.real_time_factor,
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


def _summary(heard: "dict[str, Transcription]") -> str:
    audio = sum(one.audio_s for one in heard.values())
    busy = sum(one.busy_s for one in heard.values())
    operations = sum(one.executed.operations for one in heard.values())
    if not audio:
        return "no audio"
    return (
        f"{audio:.1f} s of audio in {busy:.2f} s: real-time factor {busy / audio:.4f}, "
        f"{operations / audio / 1e6:.1f} million operations per second of audio"
    )


def run_export(
    model: str,
    out: str,
    file_format: str,
    features: str | None,
    precision: str,
    as_json: bool,
) -> None:
    """Write a model in a form that something else runs."""
    with command(as_json) as running:
        content = _exported(model, file_format, features, precision)
        from featurize.stage import Location

        target = Location.of(out)
        target.write_bytes(content)
        running.finish(
            {"file": target.uri, "format": file_format, "bytes": len(content)},
            f"{file_format}: {target} ({len(content) / 2**20:.1f} MiB)",
        )


def _exported(model: str, file_format: str, features: str | None, precision: str) -> bytes:
    if file_format == "engine":
        from evaluation.engine.engine_file import write_engine

        return write_engine(load_engine(model, features, precision))
    from evaluation.engine.build import build_engine
    from featurize.stage import Location
    from training.trained_model import load_model

    recogniser = load_model(Location.of(model))
    if file_format == "onnx":
        from evaluation.engine.onnx_export import onnx_step_model

        return onnx_step_model(build_engine(recogniser))
    if file_format == "nir":
        from evaluation.engine.nir_export import nir_file

        return nir_file(build_engine(recogniser))
    raise PipelineError(f"--format {file_format}: use engine, onnx or nir")
