"""The process that clients connect to: uvicorn, and what it lacks against half-open connections."""

import asyncio
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from evaluation.serve.app import RecognitionService, make_app
from evaluation.serve.limits import ServeLimits
from featurize.stage import PipelineError

_STOP_WITHIN_S = 3


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def open_listener(host: str, port: int, limits: ServeLimits) -> socket.socket:
    """A socket to listen on.

    Where a client takes nothing of what it was sent for ``idle_s``, the kernel ends the connection.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=limits.max_connections)
    except OSError as error:
        raise PipelineError(
            f"--host {host} --port {port}: {error.strerror or error}; name others, or port 0 for a "
            "free one"
        ) from None
    # What waits for a client, or for the engine, waits mostly at the client's own end.
    for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        listener.setsockopt(socket.SOL_SOCKET, buffer, limits.max_message_bytes)
    longest_ms = round(1000 * limits.idle_s)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, longest_ms)
    return listener


def patient_protocol(limits: ServeLimits) -> type[asyncio.Protocol]:
    """HTTP whose requests must come within ``idle_s``, on no more than so many connections."""

    class PatientProtocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > limits.max_connections:
                transport.abort()
            else:
                self.loop.call_later(limits.idle_s, self._give_up)

        def _give_up(self) -> None:
            if self.cycle is None and self.transport.get_protocol() is self:
                self.transport.abort()

    return PatientProtocol


def serve(
    recognition: RecognitionService,
    listener: socket.socket,
    limits: ServeLimits,
    on_ready: Callable[[], None],
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        recognition: what is served.
        limits: what clients may ask for.
        on_ready: called once clients can connect and either signal ends the server in order.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    host = str(listener.getsockname()[0])
    config = uvicorn.Config(
        make_app(recognition, host if is_loopback(host) else None),
        http=patient_protocol(limits),
        ws="websockets-sansio",
        ws_max_size=limits.max_message_bytes,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        timeout_graceful_shutdown=_STOP_WITHIN_S,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    server = uvicorn.Server(config)
    with _ended_by_signals(server):
        on_ready()
        server.run(sockets=[listener])


@contextmanager
def _ended_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """Have either signal ask the server to end, also before its own handlers are installed.

    Until then Python would raise KeyboardInterrupt wherever it is, and where that is a callback of
    the garbage collector or of a lock, print it and go on.
    """

    def end(_number: int, _frame: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
