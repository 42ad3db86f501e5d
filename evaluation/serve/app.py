"""What clients speak: a page, a WebSocket for speech as it comes, and POST for a file.

``GET /``
    The page: microphone, words, costs, spikes.

``POST /transcribe``
    The body is a file of any format that soundfile reads. The answer is a JSON object a line:
    ``partial`` hypotheses, then a ``final`` one or an ``error``, as below::

        curl --data-binary @speech.flac http://127.0.0.1:8765/transcribe

``WebSocket /stream``
    1. The client sends ``{"type": "start", "sample_rate_hz": 16000}``; with ``"spikes": true`` it
       will be sent spikes too.
    2. The server answers ``{"type": "ready", "text_of": "words", "sites": [40, 550, 550],
       "seconds_per_column": 0.02}``: what the text is of, and the number of neurons in the encoder
       and in each layer.
    3. The client sends binary messages of samples: one channel, signed, 16 bits, little endian; and
       at last ``{"type": "end"}``.
    4. Meanwhile the server sends ``{"type": "partial", "text": ..., "audio_s": ..., "busy_s": ...,
       "real_time_factor": ..., "multiplications": ..., "multiplications_per_s": ...,
       "spike_density": [...]}``, whose text may still change at its end; and where spikes were
       asked for, binary messages: the number of the first column (32 bits, little endian), then
       columns of the raster, each a bit for every neuron in the order of the sites, the lowest bit
       first, filled up to whole bytes. A column is one frame of the network; where these come
       faster than 50 a second, only every second, third and so on is sent.
    5. At the end it sends the same with ``"type": "final"``, and closes.

Whatever is refused is answered by ``{"type": "error", "error": ...}``, and the connection ends. A
client sends about as fast as it speaks (silence too): how far it may fall behind is limited, as is
the length of a message, a file and a stream, and the number of streams (``ServeLimits``). Where a
token is asked for it is sent as ``Authorization: Bearer TOKEN`` or ``?token=TOKEN``. Pages of other
origins are refused.
"""

import asyncio
import hmac
import json
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import IO, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from evaluation.engine.audio_file import MAX_RATE_HZ, MIN_RATE_HZ
from evaluation.engine.description import EngineDescription
from evaluation.serve.limits import Refused, ServeLimits
from evaluation.serve.session import Messages, column_stride
from evaluation.serve.workers import Workers, WorkerStream
from featurize.stage import PipelineError, TypedConfig

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
PAGE = Path(__file__).parents[1] / "templates" / "live.html"

_PIECE_S = 0.5
"""Longest piece of a message worked on at once, so that clients take turns."""
_MIN_UPLOAD_BYTES_PER_S = 16_384
_CLOSE_WITHIN_S = 2.0
_LONGEST_ERROR = 160
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline' blob:; connect-src 'self'; img-src data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class StartMessage(TypedConfig):
    """A client's first message."""

    type: Literal["start"]
    sample_rate_hz: int = Field(
        ge=MIN_RATE_HZ, le=MAX_RATE_HZ, description="Rate of the samples that follow."
    )
    spikes: bool = Field(False, description="Whether spikes are sent too.")


class EndMessage(TypedConfig):
    """A client's last message."""

    type: Literal["end"]


_TEXT_MESSAGE: TypeAdapter[StartMessage | EndMessage] = TypeAdapter(
    Annotated[StartMessage | EndMessage, Field(discriminator="type")]
)


class RecognitionService:
    """The endpoints.

    Args:
        workers: where streams are recognised.
        description: of their engine.
        find_words: whether they find words where the engine does.
        limits: what clients may ask for.
        token: what clients must know; None where anyone may speak.
    """

    def __init__(
        self,
        workers: Workers,
        description: EngineDescription,
        *,
        find_words: bool,
        limits: ServeLimits,
        token: str | None,
    ) -> None:
        self._workers = workers
        self._limits = limits
        self._token = token
        finds_words = find_words and description.word_search is not None
        self._ready = json.dumps(
            {
                "type": "ready",
                "text_of": "words" if finds_words else description.labels.kind,
                "sites": description.site_sizes,
                "seconds_per_column": column_stride(description) * description.frame_shift_s,
            }
        )
        self._page = PAGE.read_text(encoding="utf-8")

    async def page(self, request: Request) -> Response:
        """The page; it holds no secret, and reads the token from the fragment of its address."""
        return HTMLResponse(self._page, headers=_PAGE_HEADERS)

    async def transcribe(self, request: Request) -> Response:
        """Recognise a file."""
        self._admit(request)
        async with AsyncExitStack() as stack:
            stream = await stack.enter_async_context(self._workers.stream())
            file = stack.enter_context(tempfile.NamedTemporaryFile())  # noqa: SIM115
            await self._receive_file(request, file)
            await stream.begin_file(file.name)
            held = stack.pop_all()
        return StreamingResponse(_lines(stream, held), media_type="application/x-ndjson")

    async def stream(self, websocket: WebSocket) -> None:
        """Recognise speech as it comes."""
        await websocket.accept()
        longest_s = self._limits.max_stream_s + 2 * self._limits.idle_s
        try:
            async with asyncio.timeout(longest_s):
                await self._converse(websocket)
        except (WebSocketDisconnect, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not _is_closed(websocket):
                raise
        except TimeoutError:
            await _say(websocket, Refused(f"open for more than {longest_s:g} s"))
        except Refused as refused:
            await _say(websocket, refused)
        except PipelineError as error:
            await _say(websocket, Refused(str(error)))

    async def _converse(self, websocket: WebSocket) -> None:
        self._admit(websocket)
        start = _parsed(await _received(websocket, self._limits.idle_s))
        if not isinstance(start, StartMessage):
            raise Refused('the first message must be {"type": "start", "sample_rate_hz": ...}')
        async with self._workers.stream() as stream:
            await stream.begin(start.sample_rate_hz, start.spikes)
            await websocket.send_text(self._ready)
            await self._listen(websocket, stream, start.sample_rate_hz)
            await _send(websocket, await stream.finish())
        await websocket.close()

    async def _listen(
        self, websocket: WebSocket, stream: WorkerStream, sample_rate_hz: int
    ) -> None:
        """Until the client ends the stream."""
        piece_bytes = 2 * round(_PIECE_S * sample_rate_hz)
        behind_s = 0.0
        while True:
            waited_from_s = time.monotonic()
            message = await _received(websocket, self._limits.idle_s - behind_s)
            if isinstance(message, str):
                if not isinstance(_parsed(message), EndMessage):
                    raise Refused("this stream has begun; a connection is for one stream")
                return
            if len(message) % 2:
                raise Refused("a message holds half a sample; samples are 16 bits", close_code=1007)
            behind_s += time.monotonic() - waited_from_s - len(message) / 2 / sample_rate_hz
            behind_s = max(0.0, behind_s)
            for first in range(0, len(message), piece_bytes):
                await _send(websocket, await stream.feed(message[first : first + piece_bytes]))

    def _admit(self, connection: HTTPConnection) -> None:
        """Make sure that a client may speak.

        Raises:
            Refused: when it does not know the token, or is a page of another origin.
        """
        headers = connection.headers
        origin = headers.get("origin")
        if origin is not None and not _is_of(origin, headers.get("host")):
            raise Refused("pages of other origins may not use this server", 403)
        if self._token is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = connection.query_params.get("token", "")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            raise Refused("the token is missing or wrong; give ?token=... or a Bearer token", 401)

    async def _receive_file(self, request: Request, file: IO[bytes]) -> None:
        limits = self._limits
        too_long = Refused(f"a file may have {limits.max_file_bytes} bytes", 413, 1009)
        if int(request.headers.get("content-length") or 0) > limits.max_file_bytes:
            raise too_long
        chunks = request.stream()
        num_bytes, began_s = 0, time.monotonic()
        while True:
            allowed_s = limits.idle_s + num_bytes / _MIN_UPLOAD_BYTES_PER_S
            try:
                async with asyncio.timeout(allowed_s - (time.monotonic() - began_s)):
                    chunk = await anext(chunks, None)
            except TimeoutError:
                raise Refused("the file comes too slowly", 408) from None
            if chunk is None:
                request.state.is_read = True
                break
            num_bytes += len(chunk)
            if num_bytes > limits.max_file_bytes:
                raise too_long
            file.write(chunk)
        file.flush()


async def _lines(stream: WorkerStream, held: AsyncExitStack) -> AsyncIterator[str]:
    """The messages of a file, a line each, until its end."""
    async with held:
        is_end = False
        while not is_end:
            try:
                messages, is_end = await stream.read_on()
            except (PipelineError, Refused) as error:
                messages, is_end = [_error(error)], True
            for message in messages:
                yield f"{message!s}\n"


async def _received(websocket: WebSocket, allowed_s: float) -> str | bytes:
    try:
        async with asyncio.timeout(allowed_s):
            message = await websocket.receive()
    except TimeoutError:
        raise Refused("too little was sent for too long; send silence, or end the stream") from None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1006))
    text: str | None = message.get("text")
    data: bytes = message.get("bytes") or b""
    return data if text is None else text


def _is_of(origin: str, host: str | None) -> bool:
    """Whether a page's origin is this host; what is no address is of none."""
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        return False


def _parsed(message: str | bytes) -> StartMessage | EndMessage:
    if isinstance(message, bytes):
        raise Refused("samples came before the start message")
    try:
        return _TEXT_MESSAGE.validate_json(message)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = str(first["loc"][-1]) if first["loc"] else "the message"
        raise Refused(f"{field}: {first['msg']}"[:_LONGEST_ERROR], close_code=1007) from None


async def _send(websocket: WebSocket, messages: Messages) -> None:
    for message in messages:
        if isinstance(message, str):
            await websocket.send_text(message)
        else:
            await websocket.send_bytes(message)


def _is_closed(websocket: WebSocket) -> bool:
    """Whether the connection ended while something was about to be sent."""
    return "DISCONNECTED" in (websocket.client_state.name, websocket.application_state.name)


async def _say(websocket: WebSocket, refused: Refused) -> None:
    """Tell a client why, if it still listens."""
    with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
        async with asyncio.timeout(_CLOSE_WITHIN_S):
            await websocket.send_text(_error(refused))
            await websocket.close(refused.close_code)


def _error(error: Exception) -> str:
    return json.dumps({"type": "error", "error": str(error)})


async def _refused(request: Request, error: Exception) -> Response:
    """Tell a client why, once it has sent its file: most read no answer before that."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_WITHIN_S):
            while not getattr(request.state, "is_read", False):
                request.state.is_read = not (await request.receive()).get("more_body", False)
    status = error.status if isinstance(error, Refused) else 400
    return JSONResponse({"type": "error", "error": str(error)}, status)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)


def _one_request_each(app: Any) -> Any:
    """Close a connection after its response, so that none lies about half used."""

    async def respond(scope: Any, receive: Any, send: Any) -> None:
        async def send_closing(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        await app(scope, receive, send_closing)

    return respond


def make_app(recognition: RecognitionService, loopback: str | None) -> Any:
    """The ASGI application.

    Args:
        loopback: the address it listens at where that is reached from this machine alone, and
            then by names of this machine alone; None for any other.
    """
    own = []
    if loopback is not None:
        own = [Middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK_HOSTS, loopback])]
    app = Starlette(
        routes=[
            Route("/", recognition.page),
            Route("/transcribe", recognition.transcribe, methods=["POST"]),
            WebSocketRoute("/stream", recognition.stream),
        ],
        middleware=own,
        exception_handlers={Refused: _refused, PipelineError: _refused, ClientDisconnect: _gone},
    )
    return _one_request_each(app)
