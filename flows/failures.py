"""Errors as one line for a person: what is wrong and what to do."""

import re
import tempfile
import traceback
from collections.abc import Iterator
from importlib import metadata

from pydantic import ValidationError

from featurize.stage import PipelineError, condense

MISTAKE_EXIT_CODE = 2
BUG_EXIT_CODE = 1
INTERRUPT_EXIT_CODE = 130


_MAX_MESSAGE_CHARACTERS = 1200
# user:password in an address, as endpoints and API addresses may carry it
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


def one_line(text: object) -> str:
    """Text fit for a terminal and a log, whatever hostile input it quotes.

    Runs of blanks become single blanks, control characters (a terminal would obey them) are
    written out, credentials in addresses are left out, and the middle of long text too.
    """
    line = _CREDENTIALS.sub("***@", " ".join(str(text).split()))
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    if len(line) > _MAX_MESSAGE_CHARACTERS:
        half = _MAX_MESSAGE_CHARACTERS // 2
        line = f"{line[:half]} ... {line[-half:]}"
    return line


def explain(error: BaseException) -> tuple[str, int]:
    """The line to print for an error, and the exit code.

    What a person can mend ends with 2; anything else is a bug, ends with 1, and leaves its
    traceback in a file that the line names.
    """
    for cause in _causes(error):
        mendable = _mendable(cause)
        if mendable is not None:
            return one_line(mendable), MISTAKE_EXIT_CODE
    with tempfile.NamedTemporaryFile(
        "w", prefix="spikeline-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        log.writelines(traceback.format_exception(error))
    summary = one_line(error)[:200]
    return (
        f"unexpected {type(error).__name__}: {summary}; this is a bug in spikeline, its traceback "
        f"is in {log.name}",
        BUG_EXIT_CODE,
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps: Ray keeps a worker's error in ``cause``."""
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        cause = getattr(current, "cause", None)
        queue += [cause if isinstance(cause, BaseException) else None, current.__cause__]


def _mendable(error: BaseException) -> str | None:
    if isinstance(error, PipelineError):
        return str(error)
    if isinstance(error, ValidationError):
        return f"{error.title}: {condense(error)}"
    from_botocore = {c.__name__ for c in type(error).__mro__ if c.__module__.startswith("botocore")}
    if from_botocore & {"NoCredentialsError", "PartialCredentialsError"}:
        return (
            f"{error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL for "
            "a store other than AWS)"
        )
    if from_botocore:
        return f"S3: {error}; check the address, AWS_ENDPOINT_URL and the credentials"
    if server := _of_server(error):
        return server
    if isinstance(error, UnicodeError):
        return _of_encoding(error)
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return (
            "the memory is not enough; take a smaller batch_size, fewer workers, or a machine "
            f"with more of it ({error or type(error).__name__})"
        )
    if isinstance(error, ImportError):
        return _of_missing_package(error)
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        return f"{error.strerror or error}:{where} cannot be used; check the path, rights and space"
    return None


def _of_server(error: BaseException) -> str | None:
    """Of httpx, by which Prefect alone is asked: it is gone, overloaded, or refuses us."""
    if "TransportError" not in {c.__name__ for c in type(error).__mro__ if _is_of_httpx(c)}:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if not any(map(_is_of_httpx, type(error).__mro__)) or status is None:
            return None
        if status < 500 and status not in (401, 403):
            return None  # a request of ours that is wrong
    return (
        f"the Prefect server stopped answering ({str(error) or type(error).__name__}); what is "
        "finished is kept: look at that server where PREFECT_API_URL names one, then run the same "
        "command again"
    )


def _is_of_httpx(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "httpx"


def _of_encoding(error: UnicodeError) -> str | None:
    if isinstance(error, UnicodeDecodeError):
        around = error.object[max(0, error.start - 20) : error.end + 20]
        return (
            f"an input file or its name is not {error.encoding} text: byte {error.start} is "
            f"0x{error.object[error.start]:02x}, in {around!r}; convert it to UTF-8"
        )
    if isinstance(error, UnicodeEncodeError):
        if "surrogates" in error.reason:  # how Python holds the bytes of such a name
            return f"a name is not UTF-8, in {error.object[:80]!a}; rename it"
        return (
            f"{error.encoding} has no {error.object[error.start]!a}, which is to be written; "
            "set PYTHONUTF8=1 or a UTF-8 locale"
        )
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    """Torch and Ray have errors of their own for it, and torch's of the CPU is a RuntimeError."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return "OutOfMemoryError" in names or "DefaultCPUAllocator: can't allocate" in str(error)


def _of_missing_package(error: ImportError) -> str | None:
    """What to install, where the package is one that ours asks for; else it is a bug."""
    if error.name is None:
        return None
    module = _normal(error.name.partition(".")[0])
    for requirement in _requirements():
        package = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        if _normal(package) != module:
            continue
        extra = re.search(r"extra == ['\"]([^'\"]+)", requirement)
        wanted = f"'spikeline[{extra[1]}]'" if extra else f"--force-reinstall {package}"
        return f"the package {package} is missing or broken ({error}); pip install {wanted}"
    return None


def _requirements() -> list[str]:
    """Of our own distribution, those of every extra included."""
    try:
        found = metadata.requires("spikeline") or []
    except metadata.PackageNotFoundError:
        return []
    return sorted(found, key=lambda line: "extra ==" in line)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()
