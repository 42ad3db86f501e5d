"""Clients that mean harm, or know no better, beside one that speaks: it hears what it should."""

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager

import pytest
import websockets

from evaluation.serve.limits import Refused, ServeLimits
from evaluation.serve.workers import Workers
from tests.evaluation.serve.conftest import MAX_STREAMS
from tests.harness.processes import descendants
from tests.harness.serving import PATIENT, Moments, converse, serving

pytestmark = [pytest.mark.integration]

START = '{"type": "start", "sample_rate_hz": 16000}'
END = '{"type": "end"}'


@pytest.fixture
def beside(server, transcribed, speech):
    """Run what a test does while one client speaks in real time, and hold what it hears."""

    def run(harm):
        samples = speech(3.0)

        async def both():
            moments = Moments.free()
            spoken = converse(server.socket_url, samples, 16000, pace=1.0, moments=moments)
            spoken = asyncio.create_task(spoken)
            await moments.ready.wait()
            result = await harm
            return await spoken, result

        answer, result = asyncio.run(both())
        assert answer.last["type"] == "final", answer.last
        assert answer.last["text"] == transcribed(samples).text
        return result

    return run


@asynccontextmanager
async def held_streams(url, samples, number):
    """Streams that have begun, and end after the block."""
    moments = [Moments.held() for _ in range(number)]
    streams = [
        asyncio.create_task(converse(url, samples, 16000, pace=1.0, moments=each))
        for each in moments
    ]
    for each in moments:
        await each.ready.wait()
    yield streams
    for each in moments:
        each.may_end.set()


async def told(url, *messages):
    """What a client is told that sends these messages, and the code of the closing."""
    said = []
    async with websockets.connect(url, max_size=None, compression=None, **PATIENT) as client:
        try:
            for message in messages:
                await client.send(message)
            async for message in client:
                said.append(message)
        except websockets.ConnectionClosed:
            pass
        return said, client.close_code


GARBAGE = {
    "no JSON": ((b"\x00\xff".decode("latin-1"),), "Invalid JSON", 1007),
    "an array": (("[" * 5000,), "Invalid JSON", 1007),
    "another type": (('{"type": "stop"}',), "Input tag 'stop'", 1007),
    "a long type": ((json.dumps({"type": "x" * 60_000}),), "Input tag 'xxxx", 1007),
    "an unknown field": (('{"type": "end", "x": 1}',), "Extra inputs", 1007),
    "no rate": (('{"type": "start"}',), "Field required", 1007),
    "a rate of zero": (('{"type": "start", "sample_rate_hz": 0}',), "greater than", 1007),
    "a huge rate": (('{"type": "start", "sample_rate_hz": 1e300}',), "sample_rate_hz", 1007),
    "a prime rate": (('{"type": "start", "sample_rate_hz": 190979}',), "no usable ratio", 1008),
    "samples first": ((bytes(100),), "before the start message", 1008),
    "the end first": ((END,), "the first message must be", 1008),
    "half a sample": ((START, bytes(101)), "half a sample", 1007),
    "two starts": ((START, START), "a connection is for one stream", 1008),
    "text between": ((START, bytes(100), "x" * 1000), "Invalid JSON", 1007),
}


def test_garbage_is_answered_in_one_line(server, beside):
    async def all_of_it():
        answers = {}
        for name, (messages, _, _) in GARBAGE.items():
            answers[name] = await told(server.socket_url, *messages)
        return answers

    for name, (said, code) in beside(all_of_it()).items():
        _, expected, expected_code = GARBAGE[name]
        last = json.loads(said[-1])
        assert last["type"] == "error", name
        assert expected in last["error"], name
        assert "\n" not in last["error"]
        assert len(last["error"]) <= 160
        assert code == expected_code, name


def test_a_message_that_is_too_large_ends_its_stream(server, beside):
    # A client that still sends when the connection ends may lose the reason with it (1006).
    said, code = beside(told(server.socket_url, START, bytes(65_537)))
    assert code in (1009, 1006)
    assert [json.loads(message)["type"] for message in said] in ([], ["ready"])
    _, code = beside(told(server.socket_url, START, [bytes(1000)] * 70))  # in fragments
    assert code in (1009, 1006)


@pytest.fixture
def impatient(engine_file, transcribed, speech):
    """A server whose clients may be silent for five seconds; it still hears after the test."""
    with serving(engine_file, idle_s=5.0, max_streams=MAX_STREAMS) as started:
        yield started
        answer = asyncio.run(converse(started.socket_url, speech(1.0), 16000))
        assert answer.last["text"] == transcribed(speech(1.0)).text


def test_bytes_that_are_no_websocket(impatient):
    async def answer(sent):
        reader, writer = await asyncio.open_connection("127.0.0.1", impatient.port)
        writer.write(sent + b"\xff" * 100)
        try:
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def garbage():
        sent = (b"\x16\x03\x01" * 200, b"GET / HTTP/9.9\r\n\r\n", b"A" * 200_000, HANDSHAKE)
        return await asyncio.gather(*map(answer, sent))

    for said in asyncio.run(garbage()):
        assert said == b"" or said.startswith((b"HTTP/1.1 400", b"HTTP/1.1 101"))


HANDSHAKE = (
    b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def test_half_open_connections_are_closed(impatient):
    """Nothing, half a request, a handshake and then nothing, a request whose body never comes."""
    upload = b"POST /transcribe HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n\r\nx"

    async def half_open():
        opened = []
        for sent in (b"", b"GET / HTT", HANDSHAKE, upload) * 5:
            reader, writer = await asyncio.open_connection("127.0.0.1", impatient.port)
            writer.write(sent)
            opened.append((reader, writer))
        answers = []
        for reader, writer in opened:
            try:
                answers.append(await reader.read())
            except ConnectionError:
                answers.append(b"")
            writer.close()
        return answers

    answers = asyncio.run(half_open())
    assert set(answers[0::4]) == set(answers[1::4]) == {b""}
    assert all(b"too little was sent" in answer for answer in answers[2::4])
    refused = [answer.partition(b" ")[2][:3] for answer in answers[3::4]]
    assert set(refused) <= {b"408", b"503"}
    assert b"408" in refused


def test_a_client_that_trickles_is_refused(impatient):
    async def trickle():
        async def drip(client):
            while True:
                await client.send(bytes(2))
                await asyncio.sleep(0.05)

        said = []
        async with websockets.connect(impatient.socket_url, **PATIENT) as client:
            await client.send(START)
            dripping = asyncio.create_task(drip(client))
            try:
                async for message in client:
                    said.append(message)
            except websockets.ConnectionClosed:
                pass
            with pytest.raises(websockets.ConnectionClosed):
                await dripping
            return said, client.close_code

    said, code = asyncio.run(trickle())
    assert code == 1008
    assert "too little was sent for too long" in said[-1]


def test_a_client_that_never_reads_is_cut_off(engine_file, transcribed, speech):
    """Its answers fill what the kernel and the server hold for it; then the kernel ends it."""

    async def deaf(port):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, HANDSHAKE)
        start = START.replace("}", ', "spikes": true}').encode()
        await loop.sock_sendall(client, bytes([0x81, 0x80 | len(start)]) + bytes(4) + start)
        frame = bytes([0x82, 0x80 | 126]) + (64_000).to_bytes(2, "big") + bytes(4) + bytes(64_000)
        try:
            while True:
                await loop.sock_sendall(client, frame)
        except OSError:
            return True
        finally:
            client.close()

    with serving(engine_file, idle_s=5.0, max_streams=2, max_stream_s=1e6) as server:
        samples = speech(6.0)

        async def both():
            spoken = asyncio.create_task(converse(server.socket_url, samples, 16000, pace=1.0))
            cut_off = await deaf(server.port)
            return await spoken, cut_off

        answer, cut_off = asyncio.run(both())
        assert cut_off
        assert answer.last["text"] == transcribed(samples).text
        answer = asyncio.run(converse(server.socket_url, samples, 16000))
        assert answer.last["type"] == "final"


def test_five_hundred_at_once(engine_file, transcribed, speech):
    """Those beyond the limit are told so, or not let in; those within hear what they should."""
    short, long = speech(2.0), speech(10.0)

    async def one(url):
        try:
            answer = await converse(url, short, 16000)
        except (OSError, websockets.WebSocketException):
            return "not let in"
        if not answer.messages:
            return "not let in"
        last = answer.last
        return last["text"] if last["type"] == "final" else (last["error"], answer.close_code)

    async def crowd(url):
        moments = Moments.free()
        spoken = asyncio.create_task(converse(url, long, 16000, pace=1.0, moments=moments))
        await moments.ready.wait()
        return await asyncio.gather(*(one(url) for _ in range(500))), await spoken

    # One process speaks for all of them: it is slower than those that it stands for.
    with serving(engine_file, max_streams=6, idle_s=3600.0) as server:
        outcomes, spoken = asyncio.run(crowd(server.socket_url))
        text = transcribed(short).text
        full = ("6 streams are open, and no more may be; try again later", 1013)
        assert set(outcomes) <= {text, full, "not let in"}
        assert outcomes.count(text) >= 5
        assert full in outcomes
        assert spoken.last["text"] == transcribed(long).text
        assert asyncio.run(converse(server.socket_url, short, 16000)).last["text"] == text


def test_a_worker_that_is_killed_takes_its_streams_along_and_no_others(server, speech):
    samples = speech(2.0)
    workers = descendants(server.process.pid, "spawn_main")
    assert len(workers) >= 1

    async def speak_and_kill():
        async with held_streams(server.socket_url, samples, len(workers)) as streams:
            os.kill(workers[0], signal.SIGKILL)
        return await asyncio.gather(*streams)

    answers = asyncio.run(speak_and_kill())
    lost = [answer for answer in answers if answer.close_code == 1011]
    assert len(lost) == 1
    assert "begin the stream again" in lost[0].last["error"]
    assert [answer.last["type"] for answer in answers].count("final") == len(workers) - 1
    again = asyncio.run(converse(server.socket_url, speech(1.0), 16000))
    assert again.last["type"] == "final"


def test_a_worker_that_ends_with_a_file_is_replaced(engine_file):
    async def lose_one():
        with Workers(str(engine_file), True, ServeLimits(), 1) as workers:
            async with workers.stream() as stream:
                (process,) = workers._pools[0]._processes.values()
                process.kill()
                with pytest.raises(Refused, match="ended"):  # told to the client, and held no more
                    await stream.begin(16000, False)
            async with workers.stream() as stream:
                await stream.begin(16000, False)
                return await stream.finish()

    assert asyncio.run(lose_one())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_server_that_ends(engine_file, number, tmp_path):
    with serving(engine_file) as server:
        workers = descendants(server.process.pid, "spawn_main")
        server.process.send_signal(number)
        code = server.process.wait()
        assert code == (0 if number != signal.SIGKILL else -9)
    while any(os.path.exists(f"/proc/{pid}") for pid in workers):
        time.sleep(0.05)


_INTERRUPTED = """
import os
import sys
from evaluation.serve import server
from evaluation.serve.limits import ServeLimits
from flows.options import EngineSource
from flows.serve_command import run_serve

class Interrupting:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[2]))
        for _ in range(1000):  # a handler runs between two of these
            pass

serve = server.serve
server.serve = lambda *given, on_ready: serve(
    *given, on_ready=lambda: (on_ready(), Interrupting())
)
run_serve(EngineSource(sys.argv[1]), ("127.0.0.1", 0), ServeLimits(), find_words=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_server_runs_ends_it(engine_file, number):
    """In a place where Python would print a KeyboardInterrupt and go on."""
    command = [sys.executable, "-c", _INTERRUPTED, str(engine_file), str(int(number))]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("http://127.0.0.1:")
    assert "KeyboardInterrupt" not in ended.stderr


def test_pages_and_files_while_streams_are_full(server, speech):
    """A file is told that all streams are taken, the page is there."""

    async def full():
        def ask(method, path):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=1200)
            connection.request(method, path, b"x" if method == "POST" else None)
            return connection.getresponse().status

        async with held_streams(server.socket_url, speech(2.0), MAX_STREAMS) as streams:
            statuses = [
                await asyncio.to_thread(ask, *asked)
                for asked in (("POST", "/transcribe"), ("GET", "/"))
            ]
        return statuses, await asyncio.gather(*streams)

    statuses, answers = asyncio.run(full())
    assert statuses == [503, 200]
    assert {answer.last["type"] for answer in answers} == {"final"}
