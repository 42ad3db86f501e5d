"""Real speech to the server, with the model that comes along: what its engine hears alone."""

import asyncio
import http.client
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluation.engine.transcriber import Transcriber
from evaluation.published import ENGINE_NAME, shipped_model
from flows.cli import run
from tests.harness.real_speech import recordings
from tests.harness.serving import converse, serving

pytestmark = [pytest.mark.integration]
ENGINE = Path(shipped_model().path) / ENGINE_NAME


@pytest.fixture(scope="module")
def server():
    with serving(ENGINE) as started:
        yield started


@pytest.fixture(scope="module")
def spoken():
    """The shortest recording of each speaker of test-mini, and what the engine hears in it."""
    transcriber = Transcriber.from_file(ENGINE)
    found = []
    for path in recordings("test-mini", 1):
        samples, rate = soundfile.read(path, dtype="int16")
        transcriber.feed(samples / np.float32(32768))
        found.append((path, samples, rate, transcriber.result()))
    assert len(found) == 4
    return found


def test_streams_at_once_hear_what_the_engine_hears_alone(server, spoken):
    async def speak():
        url = server.socket_url
        return await asyncio.gather(
            *(converse(url, samples, rate) for _, samples, rate, _ in spoken)
        )

    for (path, _, _, expected), answer in zip(spoken, asyncio.run(speak()), strict=True):
        assert answer.last["type"] == "final", path
        assert answer.last["text"] == expected.text, path
        assert answer.last["multiplications"] == expected.executed.multiplications
        assert answer.messages[0]["text_of"] == "words"
        assert len(expected.text.split()) > 2


def test_a_file_by_post_has_the_words_of_the_command(server, spoken, capfd):
    """Both take the file's own mean and deviation."""
    assert run(["transcribe", "--json", *(str(path) for path, *_ in spoken)]) == 0
    texts = {one["file"]: one["text"] for one in json.loads(capfd.readouterr().out)["files"]}
    for path, *_ in spoken:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=1200)
        connection.request("POST", "/transcribe", path.read_bytes())
        lines = [json.loads(line) for line in connection.getresponse().read().splitlines()]
        assert lines[-1]["type"] == "final", path
        assert lines[-1]["text"] == texts[str(path)], path
