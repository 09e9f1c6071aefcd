"""A thread for what may take its time: plugins that hear of finished requests. Starts with the first job."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

__all__ = ["BackgroundWorker"]

_MAX_JOBS = 10_000


class BackgroundWorker:
    """Runs jobs one after the other. When more than ten thousand wait, new ones are dropped and counted."""

    def __init__(self) -> None:
        self.num_dropped = 0
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        self._is_busy = False

    def put(self, job: Callable[[], None]) -> None:
        """Add a job, which must not raise; returns at once."""
        with self._changed:
            if self._is_stopping or len(self._jobs) >= _MAX_JOBS:
                self.num_dropped += 1
                return
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="workbench-plugin-worker", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def wait_until_idle(self, timeout_s: float | None = None) -> bool:
        """Whether all jobs have been done within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs and not self._is_busy, timeout_s)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Do what waits, as far as the time lasts, and end the thread."""
        with self._changed:
            self._is_stopping = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._jobs or self._is_stopping)
                if not self._jobs:
                    return
                job = self._jobs.popleft()
                self._is_busy = True
            job()
