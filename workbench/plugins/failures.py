"""Calls code of plugins so that what it raises is counted and stays there. What follows is the manager's."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from workbench.errors import ConfigError
from workbench.plugins.base import PluginRefusal

__all__ = ["FailureBook", "FailureGuard", "FailureRecord"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


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


class FailureGuard:
    """Stands between plugins and those who call them. `shut_out` is told of every failure from the `max_failures`th on.

    Raises ConfigError for a number of failures below 1.
    """

    def __init__(self, max_failures: int, shut_out: Callable[[str, FailureRecord], None]) -> None:
        if max_failures < 1:
            raise ConfigError(f"max_failures={max_failures!r}: must be at least 1")
        self.failures = FailureBook()
        self._max_failures = max_failures
        self._shut_out = shut_out

    def attempt(self, plugin: str, what: str, function: Callable[[], _T], fallback: _T) -> _T:
        """What `function` of a plugin gives; `fallback` when it raises. A PluginRefusal passes."""
        try:
            return function()
        except PluginRefusal:
            raise
        except Exception as error:  # boundary: it is the plugin's own code
            self.report(plugin, what, error)
            return fallback

    def report(self, plugin: str, what: str, error: BaseException) -> None:
        """Count a failure."""
        record = self.failures.note(plugin, what, error)
        if record.count >= self._max_failures:
            self._shut_out(plugin, record)
