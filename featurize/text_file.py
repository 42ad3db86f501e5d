"""Text files of other tools: plain or gzip, with or without a byte order mark, any line ends."""

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from featurize.stage import Location, PipelineError

_GZIP_MAGIC = b"\x1f\x8b"
# str.splitlines would also divide at separators that stand within a transcript, such as U+2028.
_LINE_END = re.compile(r"\r\n?|\n")


@contextmanager
def unzipped(file: Location, what: str) -> Iterator[io.BufferedReader]:
    """The content of a file as a stream, unpacked where it is gzip.

    Args:
        what: what the file is, for messages.
    """
    try:
        with file.open_read() as stream:
            is_gzip = stream.read(2) == _GZIP_MAGIC
            stream.seek(0)
            plain = gzip.GzipFile(fileobj=stream) if is_gzip else stream
            yield io.BufferedReader(cast(io.RawIOBase, plain), 2**20)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise PipelineError(
            f"{what} {file} is a damaged gzip file ({error}); fetch it again"
        ) from error


def read_unzipped(file: Location, what: str, max_bytes: int) -> bytes:
    """The whole of it.

    Args:
        max_bytes: of the content; more is refused.
    """
    if not file.exists() or file.is_dir():
        raise PipelineError(f"{what} {file} is not a file; check the path")
    with unzipped(file, what) as stream:
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise PipelineError(f"{what} {file} is larger than {max_bytes} bytes")
    return content


def text_lines(content: bytes, errors: str = "strict") -> list[str]:
    """The lines of UTF-8 text, without its byte order mark.

    Args:
        errors: what becomes of bytes that are not UTF-8, as for ``bytes.decode``.

    Raises:
        UnicodeDecodeError: when it is not UTF-8.

    Example:
        >>> text_lines("\\ufeffa one\\u2028two\\r\\nb three".encode())
        ['a one\\u2028two', 'b three']
    """
    return _LINE_END.split(content.decode("utf-8-sig", errors))
