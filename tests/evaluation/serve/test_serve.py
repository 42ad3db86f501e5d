"""Real clients of a real server: what they hear, what they cost, what they may not do."""

import asyncio
import http.client
import io
import json
import struct

import numpy as np
import pytest
import soundfile

from tests.harness.serving import converse, serving, speak_until

pytestmark = [pytest.mark.integration]


def post(server, body, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=1200)
    connection.request("POST", "/transcribe", body, headers or {})
    answer = connection.getresponse()
    return answer.status, [json.loads(line) for line in answer.read().splitlines()]


@pytest.mark.parametrize(
    ("rate", "block"), [(16000, 1600), (16000, 160), (44100, 4410), (8000, 16000)]
)
def test_a_stream_hears_what_transcribe_hears(server, transcribed, speech, rate, block):
    samples = speech(4.0, rate)
    expected = transcribed(samples, rate)
    answer = asyncio.run(converse(server.socket_url, samples, rate, block=block))
    assert answer.last["type"] == "final"
    assert answer.last["text"] == expected.text
    assert len(expected.text) > 2
    assert answer.last["multiplications"] == expected.executed.multiplications
    assert answer.last["audio_s"] == pytest.approx(expected.audio_s, abs=1e-3)
    assert answer.close_code == 1000


def test_in_real_time_the_hypothesis_grows(server, transcribed, speech):
    answer = asyncio.run(speak_until(2, server.socket_url, speech(60.0)))
    ready, *partials, final = answer
    assert ready == {
        "type": "ready",
        "text_of": "characters",
        "sites": [13, 200, 200],
        "seconds_per_column": pytest.approx(0.03),
    }
    assert len(partials) >= 2
    assert {partial["type"] for partial in partials} == {"partial"}
    heard = [partial["audio_s"] for partial in partials]
    assert heard == sorted(set(heard))
    assert heard[-1] <= final["audio_s"]  # the last may have had all of it
    assert final["text"].startswith(partials[0]["text"].rstrip())
    assert all(message["multiplications_per_s"] > 0 for message in partials)
    assert all(message["real_time_factor"] > 0 for message in partials)


def test_the_raster_has_every_spike(server, transcribed, speech):
    samples = speech(4.0)
    answer = asyncio.run(converse(server.socket_url, samples, 16000, spikes=True))
    executed = transcribed(samples).executed
    num_neurons = sum(answer.messages[0]["sites"])
    width = -(-num_neurons // 8)
    columns = []
    for message in answer.columns:
        (first,) = struct.unpack("<I", message[:4])
        assert first == len(columns)
        bits = np.unpackbits(
            np.frombuffer(message[4:], np.uint8).reshape(-1, width), axis=1, bitorder="little"
        )
        assert not bits[:, num_neurons:].any()
        columns.extend(bits[:, :num_neurons])
    assert len(columns) == executed.num_frames
    per_neuron = np.sum(columns, axis=0)
    sites = np.split(per_neuron, np.cumsum(answer.messages[0]["sites"])[:-1])
    assert tuple(int(site.sum()) for site in sites) == executed.emitted


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG"])
def test_a_file_by_post(server, transcribed, speech, form):
    written = io.BytesIO()
    soundfile.write(written, speech(3.0), 16000, format=form)
    written.seek(0)
    decoded, _ = soundfile.read(io.BytesIO(written.getvalue()), dtype="float32")
    status, lines = post(server, written.getvalue())
    assert status == 200
    assert lines[-1]["type"] == "final"
    assert lines[-1]["text"] == transcribed(decoded * np.float32(32768)).text


def test_a_file_that_is_none_too_large_or_too_long(server, speech):
    status, (said,) = post(server, b"no audio" * 100)
    assert status == 400
    assert said["error"] == "the file: Format not recognised"
    status, (said,) = post(server, bytes(2**20 + 1))
    assert (status, said["error"]) == (413, "a file may have 1048576 bytes")
    long = io.BytesIO()
    soundfile.write(long, np.zeros(16000 * 401, np.int16), 16000, format="FLAC")
    status, lines = post(server, long.getvalue())
    assert "longer than 400 s" in lines[-1]["error"]
    chunks = (bytes(1000) for _ in range(2000))  # of unknown length
    status, (said,) = post(server, chunks)
    assert status == 413


def test_a_stream_that_is_too_long(server):
    samples = np.zeros(16000 * 401, np.int16)
    answer = asyncio.run(converse(server.socket_url, samples, 16000, block=30_000))
    assert answer.last["type"] == "error"
    assert "longer than 400 s" in answer.last["error"]
    assert answer.close_code == 1008


def test_who_may_speak(engine_file, speech):
    """Reached from outside, a token is asked for; on loopback, pages of other hosts are refused."""
    samples = speech(0.3)
    with serving(engine_file, "0.0.0.0") as server:
        token = server.address.partition("#token=")[2]
        assert len(token) > 20
        for given in ("", "?token=", "?token=wrong"):
            answer = asyncio.run(converse(server.socket_url + given, samples, 16000))
            assert "token" in answer.last["error"]
            assert answer.close_code == 1008
        known = f"{server.socket_url}?token={token}"
        assert asyncio.run(converse(known, samples, 16000)).last["type"] == "final"
        assert post(server, b"x")[0] == 401
        assert post(server, b"x", {"Authorization": "Bearer x"})[0] == 401
        assert post(server, b"x", {"Authorization": f"Bearer {token}"})[0] == 400


def test_pages_of_others_are_refused(server):
    own = f"127.0.0.1:{server.port}"
    for origin in ("http://evil.example", "http://[", "null", ""):
        assert post(server, b"x", {"Origin": origin})[0] == 403
    assert post(server, b"x", {"Origin": f"http://{own}"})[0] == 400  # no audio, but read
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=1200)
    connection.request("GET", "/", headers={"Host": "evil.example"})
    assert connection.getresponse().status == 400
