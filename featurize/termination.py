"""SIGTERM while Ray is at work: stop the workers first, then end as the process would have."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class TerminationAfterRay:
    """Hands a SIGTERM to its handler of before, once Ray has let go and its workers are stopped.

    Ray replaces the handler by an exit without farewell, and of the exceptions that a handler may
    raise while Ray's C++ waits it passes on two only: an interrupt and an exit. So the signal
    becomes an interrupt within this context and is raised anew at its end; what cancelled the run
    (Prefect, a supervisor) then gets the end it waits for. Outside the main thread, where no signal
    arrives, the context does nothing.
    """

    def __init__(self) -> None:
        self._is_main = threading.current_thread() is threading.main_thread()
        self._is_terminated = False

    def __enter__(self) -> Self:
        if self._is_main:
            self._handler_before = signal.getsignal(signal.SIGTERM)
        return self

    def take_over(self) -> None:
        """Handle the signal from now on; call when Ray has started."""
        if self._is_main:
            signal.signal(signal.SIGTERM, self._interrupt)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if not self._is_terminated:  # a repeated signal must not break the shutdown
            self._is_terminated = True
            raise KeyboardInterrupt

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._is_main:
            return
        signal.signal(signal.SIGTERM, self._handler_before)
        # Ray's own handler, while Ray was starting, exits with the signal's number.
        exited = isinstance(error, SystemExit) and error.code == signal.SIGTERM
        if self._is_terminated or exited:
            signal.raise_signal(signal.SIGTERM)
