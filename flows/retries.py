"""Which failures are worth another try."""

from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext

RETRY_DELAYS_S = [1.0, 5.0, 20.0]
NUM_RETRIES = len(RETRY_DELAYS_S)


def is_io_error(error: BaseException) -> bool:
    """Whether storage or the network failed, rather than the input or the code.

    A path that is not there, or that may not be read, stays so: it is not retried.
    """
    if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError):
        return False
    # BotoCoreError (a dead endpoint) is no OSError. NoCredentialsError is one of them, and
    # another try brings no credentials.
    names = {cls.__name__ for cls in type(error).__mro__ if cls.__module__.startswith("botocore")}
    if "NoCredentialsError" in names:
        return False
    return isinstance(error, OSError) or "BotoCoreError" in names


def retry_io_errors(task: Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Prefect's retry condition: only after an I/O error."""
    try:
        state.result()
    except Exception as error:
        return is_io_error(error)
    return False


def is_first_attempt() -> bool:
    """Whether the task around this call has not failed before; true outside a task."""
    context = TaskRunContext.get()
    return context is None or context.task_run.run_count <= 1
