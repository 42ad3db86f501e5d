"""SIGTERM in a process that uses Ray: the handler from before Ray stays in place.

What cancels a run (Prefect, a supervisor) sends SIGTERM and relies on its own handler. Ray replaces
that handler by one that ends the process at once. Ray also drops most exceptions that a handler
raises while its C++ code waits, so the main thread must not wait there.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager


@contextmanager
def termination_handler_kept() -> Iterator[None]:
    """Put the handler back at the end of the context, in which Ray starts.

    A signal that comes meanwhile is raised anew then. Outside the main thread, where signals do
    not arrive, the context does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    is_terminated = False
    try:
        yield
    except SystemExit as ended:
        is_terminated = ended.code == signal.SIGTERM  # Ray's own handler exits so
        raise
    finally:
        signal.signal(signal.SIGTERM, handler)
        if is_terminated:
            signal.raise_signal(signal.SIGTERM)


def call_interruptibly(work: Callable[[], object], unless: Future[None] | None = None) -> None:
    """Call in another thread and wait here, where a signal handler's exception is raised.

    Args:
        unless: whose exception, if it comes first, ends the waiting and is raised.

    Raises:
        BaseException: what ``work`` raises. After an interruption the thread may still be running;
            the end of the Ray session ends it.
    """
    if unless is not None and unless.done():
        unless.result()
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            work()
            outcome.set_result(None)
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="interruptible", daemon=True).start()
    if unless is not None:
        wait([outcome, unless], return_when=FIRST_COMPLETED)
        if unless.done() and (not outcome.done() or outcome.exception() is not None):
            unless.result()
    outcome.result()
