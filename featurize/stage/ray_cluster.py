"""The Ray that work runs on: the one in use, the cluster at RAY_ADDRESS, or one started here.

A driver cannot go on without the Ray node of its machine: as soon as it touches an object there,
Ray ends the driver's process without a message. So a thread watches the node, and
:func:`call_on_ray` raises an error that says what happened when the node ends.
"""

import os
import selectors
import socket
import tempfile
import threading
import time
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

# A cluster that is there answers at once; one that is just starting may need a moment.
_ANSWER_TIMEOUT_S = 20.0
# Ray adds some 65 characters to its folder for a socket's path, of which a path may have 107.
_MAX_FOLDER_CHARACTERS = 40


@contextmanager
def ray_session(num_cpus: int | None = None) -> Iterator[Any]:
    """Use the running Ray, or join the cluster at RAY_ADDRESS, or start a local one.

    What was joined or started here is left or stopped at the end.

    Args:
        num_cpus: CPUs of a Ray started here; its machine's where None.
    """
    import ray

    if ray.is_initialized():
        with _node_watched():
            yield ray
        return
    address = os.environ.get("RAY_ADDRESS", "").strip()
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "ERROR",
        # Workers get this process's working folder in front of their path.
        "runtime_env": {"worker_process_setup_hook": "spikeline_start.settle"},
    }
    if address:
        _require_answer(address)
    else:
        # "local" never joins the leftovers of a killed cluster on this machine.
        options |= {"address": "local", "num_cpus": num_cpus, "include_dashboard": False}
        options |= _short_folder()
    try:
        with termination_handler_kept():
            ray.init(**options)
    except Exception as error:  # a node that does not start in time raises no finer kind
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


def _require_answer(address: str) -> None:
    """Refuse the address of a cluster that is gone; Ray would try for a quarter of an hour."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return  # "auto" and "local" are Ray's own words
    deadline = time.monotonic() + _ANSWER_TIMEOUT_S
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5.0):
                return
        except (OSError, OverflowError) as error:
            if time.monotonic() >= deadline or isinstance(error, socket.gaierror | OverflowError):
                raise PipelineError(
                    f"no Ray cluster answers at RAY_ADDRESS={address} ({error}); start it, or "
                    "unset RAY_ADDRESS to work on this machine"
                ) from error
        time.sleep(0.5)


def _short_folder() -> dict[str, str]:
    """Where a Ray of our own keeps its sockets, if the temporary folder's path is too long."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(folder) <= _MAX_FOLDER_CHARACTERS:
        return {}
    short = f"/tmp/ray-{os.getuid()}"  # noqa: S108 - the only short path there is
    try:
        os.makedirs(short, mode=0o700, exist_ok=True)
        is_ours = os.stat(short).st_uid == os.getuid() and not os.path.islink(short)
    except OSError:
        is_ours = False
    if not is_ours:
        raise PipelineError(
            f"the temporary folder {folder} is too long for Ray's sockets, and {short} cannot be "
            f"used; set RAY_TMPDIR to a folder of at most {_MAX_FOLDER_CHARACTERS} characters"
        )
    return {"_temp_dir": short}


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
