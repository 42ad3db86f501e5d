"""SIGTERM in a process that uses Ray: it stays with whoever handled it before.

What cancels a run (Prefect, a supervisor) asks with SIGTERM, and looks whether its own handler is
still there to answer. Ray replaces the handler by an exit without farewell. And of the exceptions
that a handler raises while Ray's C++ waits, Ray drops most: so the main thread must not wait there.
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
    """Call in another thread and wait for it here, where any signal's exception comes through.

    Args:
        work: what to call.
        unless: whose exception, if it comes first, ends the waiting and is raised.

    Raises:
        BaseException: what ``work`` raises. After an interruption the thread may still be at work;
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
