"""Processes that recognise: each has the engine, and every stream stays with one of them.

The engine's kernels would share a process, but the search holds Python's lock while it works.
A stream waits for the answer to one call before it makes the next, so no more calls are queued than
there are streams.
"""

import asyncio
import itertools
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Self

from evaluation.engine.transcriber import Transcriber
from evaluation.serve.limits import Refused, ServeLimits
from evaluation.serve.session import FileSession, Messages, Session

_BROKEN = "the process that recognised this stream ended; begin the stream again"

_recogniser: Transcriber
_max_stream_s: float
_sessions: dict[int, Session | FileSession] = {}


def _load(engine_file: str, find_words: bool, max_stream_s: float) -> None:
    """Prepare a worker process; it ends with the server's own, however that ends."""
    from threadpoolctl import threadpool_limits

    global _recogniser, _max_stream_s
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    threadpool_limits(1)
    _recogniser = Transcriber.from_file(engine_file, find_words=find_words)
    _max_stream_s = max_stream_s


def _end_with_the_server() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _compile() -> None:
    """Make the first client's stream as fast as the others'."""
    session = Session(_recogniser, 16_000, _max_stream_s, wants_spikes=True)
    session.feed(bytes(16_000))
    session.finish()


def _begin(number: int, sample_rate_hz: int, wants_spikes: bool) -> None:
    _sessions[number] = Session(_recogniser, sample_rate_hz, _max_stream_s, wants_spikes)


def _begin_file(number: int, path: str) -> None:
    _sessions[number] = FileSession(_recogniser, path, _max_stream_s)


def _of_session(number: int, method: str, *args: object) -> Any:
    """What a method of a stream's session returns."""
    return getattr(_sessions[number], method)(*args)


def _forget(number: int) -> None:
    session = _sessions.pop(number, None)
    if isinstance(session, FileSession):
        session.close()


class WorkerStream:
    """A stream as the server sees it; its session is in a worker process."""

    def __init__(self, pool: ProcessPoolExecutor, number: int) -> None:
        self._pool = pool
        self._number = number
        self.is_broken = False  # its worker has ended

    async def begin(self, sample_rate_hz: int, wants_spikes: bool) -> None:
        """Begin with a rate."""
        await self._call(_begin, sample_rate_hz, wants_spikes)

    async def begin_file(self, path: str) -> None:
        """Begin to read a file."""
        await self._call(_begin_file, path)

    async def feed(self, pcm: bytes) -> Messages:
        """Listen to 16-bit samples."""
        found: Messages = await self._call(_of_session, "feed", pcm)
        return found

    async def finish(self) -> Messages:
        """End the stream."""
        found: Messages = await self._call(_of_session, "finish")
        return found

    async def read_on(self) -> tuple[Messages, bool]:
        """Listen to the next block of a file; its messages, and whether that was the end."""
        found: tuple[Messages, bool] = await self._call(_of_session, "read_on")
        return found

    def forget(self) -> None:
        """Forget the session once the call in progress is done."""
        try:
            self._pool.submit(_forget, self._number)
        except RuntimeError:  # it broke, or the server is ending
            return

    async def _call(self, function: Any, *args: object) -> Any:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, function, self._number, *args)
        except BrokenProcessPool:
            self.is_broken = True
            raise Refused(_BROKEN, 500, 1011) from None


class Workers:
    """The worker processes.

    Args:
        engine_file: what each of them reads.
        find_words: whether the text is of words where the engine finds them.
        limits: of streams.
    """

    def __init__(
        self, engine_file: str, find_words: bool, limits: ServeLimits, num_processes: int
    ) -> None:
        self._loaded_with = (engine_file, find_words, limits.max_stream_s)
        self._max_streams = limits.max_streams
        self._numbers = itertools.count()
        self._num_streams: Counter[int] = Counter(dict.fromkeys(range(num_processes), 0))
        self._pools = [self._new_pool() for _ in range(num_processes)]

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_load,
            initargs=self._loaded_with,
        )

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[WorkerStream]:
        """A stream in the worker that has the fewest.

        Raises:
            Refused: when there are as many as there may be.
        """
        if self._num_streams.total() >= self._max_streams:
            full = f"{self._max_streams} streams are open, and no more may be; try again later"
            raise Refused(full, 503, 1013)
        place = min(self._num_streams, key=self._num_streams.__getitem__)
        stream = WorkerStream(self._pools[place], next(self._numbers))
        pool = self._pools[place]
        self._num_streams[place] += 1
        try:
            yield stream
        finally:
            if stream.is_broken and self._pools[place] is pool:
                self._pools[place] = self._new_pool()
            self._num_streams[place] -= 1
            stream.forget()

    def __enter__(self) -> Self:
        """Wait until every worker has loaded and compiled what it needs."""
        for ready in [pool.submit(_compile) for pool in self._pools]:
            ready.result()
        return self

    def __exit__(self, *_error: object) -> None:
        """End the workers."""
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)
