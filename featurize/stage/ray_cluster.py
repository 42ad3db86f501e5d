"""The Ray that work runs on: the one in use, the cluster at RAY_ADDRESS, or one started here.

A driver cannot go on without the Ray node of its machine: as soon as it touches an object there,
Ray ends the driver's process without a message. So a thread watches the node, and
:func:`call_on_ray` raises an error that says what happened when the node ends.
"""

import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from featurize.stage.errors import PipelineError
from featurize.stage.termination import call_interruptibly, termination_handler_kept

_NODE_LOST = (
    "the Ray node of this machine has ended (it was killed, or ran out of memory); what is "
    "finished is kept, running the stage again goes on from there"
)
# Read by Ray at import: a thread that still works when a session ends must not start another Ray,
# which Ray does by itself, with other settings, at any call.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")

_lost_node: Future[None] | None = None


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
        with _node_watched():
            yield ray
        return
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "ERROR",
        # Workers get this process's working folder in front of their path.
        "runtime_env": {"worker_process_setup_hook": "spikeline_start.settle"},
    }
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
        with _node_watched():
            yield ray
    finally:
        ray.shutdown()


def call_on_ray(work: Callable[[], object]) -> None:
    """Call what waits for Ray, within :func:`ray_session`; exceptions of signals are raised here.

    Raises:
        PipelineError: when the Ray node of this machine ends meanwhile.
        BaseException: what ``work`` raises.
    """
    call_interruptibly(work, unless=_lost_node)


@contextmanager
def _node_watched() -> Iterator[None]:
    """Watch the node for as long as the context lasts, unless someone does already.

    An idle connection to the node's own socket ends when the node does.
    """
    global _lost_node
    from ray._private import worker

    node = getattr(worker, "_global_node", None)
    path = getattr(node, "raylet_socket_name", None)
    if path is None or _lost_node is not None:
        yield
        return
    with socket.socket(socket.AF_UNIX) as connection:
        waker, woken = socket.socketpair()
        with waker, woken:
            lost: Future[None] = Future()
            try:
                connection.connect(path)
            except OSError:  # a moment ago it answered
                lost.set_exception(PipelineError(_NODE_LOST))
            watcher = threading.Thread(
                target=_watch, args=(connection, woken, lost), name="ray-node", daemon=True
            )
            watcher.start()
            _lost_node = lost
            try:
                yield
            finally:
                _lost_node = None
                waker.close()
                watcher.join()


def _watch(connection: socket.socket, woken: socket.socket, lost: Future[None]) -> None:
    """Until one of the two connections ends."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        ended = {key.fileobj for key, _ in selector.select()}
    if woken not in ended and not lost.done():
        lost.set_exception(PipelineError(_NODE_LOST))
