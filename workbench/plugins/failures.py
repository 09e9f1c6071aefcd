"""How often each plugin has failed, and with what. Counts; what follows is the manager's."""

from __future__ import annotations

import logging
import threading
import traceback
from dataclasses import dataclass

__all__ = ["FailureBook", "FailureRecord"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FailureRecord:
    """`count` failures so far, of which the last said `message`, with its traceback as text in `details`."""

    count: int = 0
    message: str = ""
    details: str = ""


class FailureBook:
    """Failures by plugin. May be used from any thread; keeps text, so that no frame is kept alive."""

    def __init__(self) -> None:
        self._records: dict[str, FailureRecord] = {}
        self._lock = threading.Lock()

    def note(self, plugin: str, what: str, error: BaseException) -> FailureRecord:
        """Count one more, and log it with its traceback."""
        _log.error("plugin %s failed in %s", plugin, what, exc_info=error)
        message = f"{what}: {type(error).__name__}: {error}"
        with self._lock:
            before = self._records.get(plugin, FailureRecord())
            record = FailureRecord(before.count + 1, message, "".join(traceback.format_exception(error)))
            self._records[plugin] = record
        return record

    def of(self, plugin: str) -> FailureRecord:
        """What is known of a plugin."""
        return self._records.get(plugin, FailureRecord())

    def forget(self, plugin: str) -> None:
        """Begin to count anew."""
        with self._lock:
            self._records.pop(plugin, None)
