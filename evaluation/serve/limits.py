"""What a client may ask of the server, and how it is told that it asked for more."""

from pydantic import Field

from featurize.stage import TypedConfig


class ServeLimits(TypedConfig):
    """What one client, and all together, may take."""

    max_streams: int = Field(64, ge=1, le=10_000, description="Streams and files at once.")
    max_stream_s: float = Field(600.0, gt=0, description="Longest stream or file, in seconds.")
    idle_s: float = Field(
        10.0,
        gt=0,
        description="Longest time in all by which a client may be slower than real time, and "
        "longest time for a request to arrive, in seconds.",
    )
    max_message_bytes: int = Field(
        65_536,
        ge=1024,
        description="Longest WebSocket message, in bytes; a longer one ends its stream.",
    )
    max_file_bytes: int = Field(2**26, ge=1024, description="Longest file sent by POST, in bytes.")
    max_connections: int = Field(
        512, ge=1, description="Connections at once, those without a stream included."
    )


class Refused(Exception):
    """A client is told this one line, and its stream ends.

    Attributes:
        status: of an HTTP response.
        close_code: of a WebSocket (RFC 6455, section 7.4.1).
    """

    def __init__(self, message: str, status: int = 400, close_code: int = 1008) -> None:
        super().__init__(message)
        self.status = status
        self.close_code = close_code
