"""Runs the newest of several jobs on a thread of its own, and none while there is nothing to do. Knows no widget."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

__all__ = ["LatestJob"]

_log = logging.getLogger(__name__)

# A job that asks the network may take longer; its thread ends by itself then.
_END_S = 2.0


class LatestJob:
    """`ask(job)` returns at once. A job that waits when a newer one comes is dropped; one that runs is let end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._waiting: Callable[[], None] | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def ask(self, job: Callable[[], None]) -> None:
        """Have `job` run soon."""
        with self._lock:
            if self._is_closed:
                return
            self._waiting = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing is to do; True when that is so."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
        return self._thread is None

    def close(self) -> None:
        """Drop what waits, take no more, and give what runs a moment to end."""
        with self._lock:
            self._is_closed, self._waiting = True, None
        self.wait(_END_S)

    def _run(self) -> None:
        while True:
            with self._lock:
                job, self._waiting = self._waiting, None
                if job is None:
                    self._thread = None
                    return
            try:
                job()
            except Exception:
                _log.exception("a job of %s failed", self._name)
