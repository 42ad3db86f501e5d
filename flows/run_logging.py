"""The pipeline's log records, sent to the Prefect run they belong to."""

import logging

from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging.handlers import APILogHandler

from flows.terminal import PACKAGES


class _RunLogHandler(APILogHandler):
    """Prefect's handler, silent outside a run (where it would warn at every record)."""

    def emit(self, record: logging.LogRecord) -> None:
        if FlowRunContext.get() is not None or TaskRunContext.get() is not None:
            super().emit(record)


def send_logs_to_runs() -> None:
    """Attach the handler to the pipeline's packages; repeating it changes nothing."""
    for name in PACKAGES:
        logger = logging.getLogger(name)
        if not any(isinstance(handler, _RunLogHandler) for handler in logger.handlers):
            logger.addHandler(_RunLogHandler(logging.INFO))
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
