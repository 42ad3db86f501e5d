"""The error type whose message is written for the person who runs the pipeline."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class PipelineError(ValueError):
    """Something the person running the pipeline can mend; the message says what and how.

    The command line prints the message alone, without a traceback. A plain ``ValueError``
    from a library stays a bug report.
    """


def is_of_the_store(error: BaseException) -> bool:
    """Whether a store or a disk failed, rather than what a file holds.

    pyarrow raises a plain OSError without a number where content is damaged.
    """
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError):
        return False
    return type(error) is not OSError or error.errno is not None


def condense(error: "ValidationError") -> str:
    """A validation error in one line: the field, what is wrong, what was given."""
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ").replace("\n", " ")
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{where}: {message}{more}" if where else f"{message}{more}"
