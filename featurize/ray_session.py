"""The Ray that work runs on: the one in use, the cluster at RAY_ADDRESS, or one of our own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from featurize.errors import PipelineError
from featurize.termination import termination_handler_kept


@contextmanager
def ray_session(num_cpus: int | None = None) -> Iterator[Any]:
    """Use the running Ray, or join the cluster at RAY_ADDRESS, or start a local one.

    What was joined or started here is left or stopped at the end.

    Args:
        num_cpus: CPUs of a Ray started here; its machine's where None.

    Raises:
        PipelineError: when the cluster does not answer or refuses the token.
    """
    import ray

    if ray.is_initialized():
        yield ray
        return
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if not address:
        # "local" never joins the leftovers of a killed cluster on this machine.
        options |= {"address": "local", "num_cpus": num_cpus, "include_dashboard": False}
    try:
        with termination_handler_kept():
            ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        problem = str(error).strip().splitlines()
        raise PipelineError(
            f"Ray at {address or 'this machine'} cannot be used: {problem[0] if problem else error}"
            "; check RAY_ADDRESS and the token, or unset RAY_ADDRESS to work on this machine"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()
