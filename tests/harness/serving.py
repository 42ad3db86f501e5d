"""A server in a process of its own, and clients of it."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import websockets
from numpy.typing import NDArray

_SCRIPT = """
import sys
from evaluation.serve.limits import ServeLimits
from flows.options import EngineSource
from flows.serve_command import run_serve
engine, host, limits = sys.argv[1:]
limits = ServeLimits.model_validate_json(limits)
run_serve(EngineSource(engine), (host, 0), limits, find_words=True)
"""


PATIENT: dict[str, Any] = {"open_timeout": None, "close_timeout": None, "ping_interval": None}
"""How a client connects that waits however long a busy machine takes."""


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        address: as it printed it, with the token where there is one.
    """

    process: subprocess.Popen[str]
    address: str

    @property
    def url(self) -> str:
        return self.address.partition("#")[0]

    @property
    def port(self) -> int:
        return int(self.url.rstrip("/").rpartition(":")[2])

    @property
    def socket_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/stream"


@contextmanager
def running(command: list[str], **environment: str) -> Iterator[Server]:
    """A server that has printed its address."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, f"the server ended with {process.wait()}"
        yield Server(process, address)
    finally:
        process.terminate()
        process.wait(timeout=1200)
        process.stdout.close()


@contextmanager
def serving(engine: Path, host: str = "127.0.0.1", **limits: object) -> Iterator[Server]:
    """A server with limits of a test's own."""
    command = [sys.executable, "-c", _SCRIPT, str(engine), host, json.dumps(limits)]
    with running(command) as server:
        yield server


@dataclass(frozen=True)
class Moments:
    """What a test waits for in a stream, and what a stream waits for.

    Attributes:
        ready: set when the server listens, or has ended the stream.
        may_end: the stream ends with its samples, but not before this is set.
    """

    ready: asyncio.Event = field(default_factory=asyncio.Event)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def held(cls) -> "Moments":
        """Those of a stream that stays open until a test lets it end."""
        return cls()

    @classmethod
    def free(cls) -> "Moments":
        """Those of a stream that ends with its samples."""
        moments = cls()
        moments.may_end.set()
        return moments


@dataclass(frozen=True)
class Answer:
    """What a client was sent.

    Attributes:
        messages: JSON messages in order.
        columns: bits of the raster, a row for each column.
        close_code: of the WebSocket.
        late_s: time from the last sample to the final hypothesis.
    """

    messages: list[dict[str, Any]]
    columns: list[bytes]
    close_code: int | None
    late_s: float

    @property
    def last(self) -> dict[str, Any]:
        return self.messages[-1]


async def converse(
    url: str,
    samples: NDArray[np.int16],
    rate: int,
    *,
    block: int = 1600,
    spikes: bool = False,
    pace: float = 0.0,
    moments: Moments | None = None,
) -> Answer:
    """Stream samples as a client does.

    Args:
        url: of the WebSocket.
        samples: of speech.
        rate: of them.
        block: samples in a message.
        spikes: whether to ask for the raster.
        pace: seconds waited per second of audio; 1 is real time, 0 as fast as can be.
        moments: for a test that waits for the stream, or has it wait.
    """
    moments = moments or Moments.free()
    loop = asyncio.get_running_loop()
    messages, columns, ended_s = [], [], 0.0
    async with websockets.connect(url, max_size=None, compression=None, **PATIENT) as socket:

        async def speak() -> None:
            nonlocal ended_s
            began_s = loop.time()
            start = {"type": "start", "sample_rate_hz": rate, "spikes": spikes}
            await socket.send(json.dumps(start))
            for first in range(0, len(samples), block):
                due_s = began_s + pace * min(first + block, len(samples)) / rate
                await asyncio.sleep(max(0.0, due_s - loop.time()))
                await socket.send(samples[first : first + block].astype("<i2").tobytes())
            ended_s = loop.time()
            await moments.may_end.wait()
            await socket.send('{"type": "end"}')

        speaking = asyncio.create_task(speak())
        try:
            async for message in socket:
                if isinstance(message, bytes):
                    columns.append(message)
                else:
                    messages.append(json.loads(message))
                    moments.ready.set()
        except websockets.ConnectionClosedError:
            pass  # its code is given
        finally:
            moments.ready.set()
        late_s = loop.time() - ended_s
        speaking.cancel()
    return Answer(messages, columns, socket.close_code, late_s)


async def speak_until(
    num_partials: int, url: str, samples: NDArray[np.int16], rate: int = 16000
) -> list[dict[str, Any]]:
    """Stream samples in real time until the server has told so many partial hypotheses.

    Returns:
        All messages, the final hypothesis last.
    """
    messages: list[dict[str, Any]] = []
    block = rate // 10
    async with websockets.connect(url, compression=None, **PATIENT) as socket:
        await socket.send(json.dumps({"type": "start", "sample_rate_hz": rate}))
        messages.append(json.loads(await socket.recv()))
        first = 0
        while len(messages) <= num_partials and first < len(samples):
            await socket.send(samples[first : first + block].astype("<i2").tobytes())
            first += block
            with suppress(TimeoutError):
                messages.append(json.loads(await asyncio.wait_for(socket.recv(), block / rate)))
        await socket.send('{"type": "end"}')
        messages += [json.loads(message) async for message in socket]
    return messages
