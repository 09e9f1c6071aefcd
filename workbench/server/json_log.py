"""One JSON line for whatever this process has to log, ours or a library's, so that a collector reads all of it."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from workbench.server.access_log import ACCESS_LOGGER

__all__ = ["JsonLines", "json_log"]


class JsonLines(logging.Formatter):
    """`time`, `level`, `logger`, `message`, and `exception` with its traceback. The access log is JSON already."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever line breaks the message has."""
        if record.name == ACCESS_LOGGER:
            return record.getMessage()
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


@contextmanager
def json_log(stream: TextIO | None = None, *, access: bool = True) -> Iterator[None]:
    """For its time every logger, warning and thread's failure goes to `stream` (stderr), a JSON line each.

    Loggers that libraries gave handlers of their own before lose them for that time. Without `access` there is no line
    per request.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    root, access_logger = logging.getLogger(), logging.getLogger(ACCESS_LOGGER)
    taken = _take_over(root)
    before = (root.handlers[:], access_logger.level, threading.excepthook)
    root.handlers[:] = [handler]
    access_logger.setLevel(logging.INFO if access else logging.WARNING)
    logging.captureWarnings(True)
    threading.excepthook = _log_failure
    try:
        yield
    finally:
        root.handlers[:], access_level, threading.excepthook = before
        access_logger.setLevel(access_level)
        logging.captureWarnings(False)
        for logger, handlers, propagate in taken:
            logger.handlers[:], logger.propagate = handlers, propagate


def _take_over(root: logging.Logger) -> list[tuple[logging.Logger, list[logging.Handler], bool]]:
    """Have every logger hand its records to `root` only; how they were."""
    taken = []
    for logger in list(root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and (logger.handlers or not logger.propagate):
            taken.append((logger, logger.handlers[:], logger.propagate))
            logger.handlers[:], logger.propagate = [], True
    return taken


def _log_failure(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_type is SystemExit or failed.exc_value is None:
        return
    info = (failed.exc_type, failed.exc_value, failed.exc_traceback)
    name = failed.thread.name if failed.thread else "unknown"
    logging.getLogger(__name__).error("thread %s failed", name, exc_info=info)
