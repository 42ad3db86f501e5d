"""Which failures are worth another try."""

from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.context import FlowRunContext, TaskRunContext

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


RETRIED: dict[str, Any] = {
    "retries": NUM_RETRIES,
    "retry_delay_seconds": RETRY_DELAYS_S,
    "retry_condition_fn": retry_io_errors,
    "cache_policy": NO_CACHE,
}
"""Options of a task that reads and writes storage; its stage knows by itself what is finished."""


def is_first_attempt() -> bool:
    """Whether neither the task nor the flow around this call ran before; true outside a run.

    A forced run that is tried again, by the engine or by a person, goes on with what the attempt
    before it began.
    """
    flow_run, task = _flow_run(), TaskRunContext.get()
    return (flow_run is None or flow_run.run_count <= 1) and (
        task is None or task.task_run.run_count <= 1
    )


def _flow_run() -> FlowRun | None:
    context = FlowRunContext.get()
    return None if context is None else context.flow_run
