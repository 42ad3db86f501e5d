"""``transcribe --microphone``, with a stand-in for sounddevice that hears what it is given."""

import json
import os
import signal
import sys
import threading
import types

import numpy as np
import pytest

from flows.cli import run


def sounddevice_that_hears(samples, error=None):
    """Calls back from a thread of its own, as PortAudio does, and at the end presses Ctrl-C."""
    module = types.ModuleType("sounddevice")
    module.PortAudioError = type("PortAudioError", (Exception,), {})

    class InputStream:
        def __init__(self, samplerate, channels, dtype, blocksize, callback):
            assert (samplerate, channels, dtype) == (16000, 1, "float32")
            if error is not None:
                raise module.PortAudioError(error)
            self._blocks = np.split(samples[:, None], range(blocksize, len(samples), blocksize))
            self._callback = callback

        def __enter__(self):
            self._thread = threading.Thread(target=self._hear)
            self._thread.start()

        def __exit__(self, *_):
            self._thread.join()

        def _hear(self):
            for block in self._blocks:
                self._callback(block, len(block), None, None)
            os.kill(os.getpid(), signal.SIGINT)

    module.InputStream = InputStream
    return module


def test_all_that_was_said_until_the_end_is_heard(
    engine_file, transcribed, speech, monkeypatch, capfd
):
    samples = speech(4.0)
    heard = sounddevice_that_hears(samples / np.float32(32768))
    monkeypatch.setitem(sys.modules, "sounddevice", heard)
    before = signal.getsignal(signal.SIGINT)
    assert run(["transcribe", "--microphone", "--json", "--model", str(engine_file)]) == 0
    told = capfd.readouterr()
    result = json.loads(told.out)
    expected = transcribed(samples)
    assert (result["text"], result["audio_s"]) == (expected.text, expected.audio_s)
    assert result["multiplications_per_s"] == expected.multiplications_per_s
    lines = [line for line in told.err.splitlines() if line.startswith("... [real-time factor")]
    assert len(lines) > 20
    assert "M multiplications/s] " in lines[-1]
    assert signal.getsignal(signal.SIGINT) is before


def test_recognition_that_falls_behind_says_so(engine_file, speech, monkeypatch, capfd):
    heard = sounddevice_that_hears(np.zeros(16000 * 60, np.float32))
    monkeypatch.setitem(sys.modules, "sounddevice", heard)
    monkeypatch.setattr("evaluation.engine.transcriber.Transcriber.feed", slowly)
    assert run(["transcribe", "--microphone", "--model", str(engine_file)]) == 2
    assert "slower than speech here" in capfd.readouterr().err


def slowly(*_):
    """Until all has been heard."""
    for thread in threading.enumerate():
        if "_hear" in thread.name:
            thread.join()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (None, "pip install 'spikeline[microphone]'"),
        (sounddevice_that_hears(np.zeros(1), "Error querying device -1"), "plug one in"),
    ],
    ids=["no package", "no device"],
)
def test_what_is_missing_is_one_line(engine_file, monkeypatch, capfd, module, message):
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    assert run(["transcribe", "--microphone", "--model", str(engine_file)]) == 2
    told = capfd.readouterr().err
    assert message in told.replace("\n", " ")
    assert "Traceback" not in told


@pytest.mark.parametrize("more", [[], ["--microphone", "a.wav"]])
def test_files_or_the_microphone(engine_file, more, capfd):
    assert run(["transcribe", "--model", str(engine_file), *more]) == 2
    assert "give files, or --microphone" in capfd.readouterr().err


def test_a_dense_model_is_refused_in_one_line(write_model, capfd):
    model = str(write_model("gru").uri)
    assert run(["serve", "--model", model, "--port", "0"]) == 2
    told = capfd.readouterr()
    assert "model=gru does not spike" in told.err
    assert told.out == ""


def test_an_address_that_is_taken(engine_file, capfd):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(["serve", "--model", str(engine_file), "--port", str(port)]) == 2
    assert f"--port {port}: Address already in use" in capfd.readouterr().err
