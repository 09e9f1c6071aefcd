"""Joins pieces of text that come faster than they should be shown. Knows nothing of widgets."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Coalescer"]


class Coalescer:
    """Calls `emit(text)` from a thread of its own: the first piece at once, then at most every `interval_s` seconds.

    Nothing is lost and the order is kept; `close()` emits what is left and ends the thread.
    """

    def __init__(self, emit: Callable[[str], None], interval_s: float) -> None:
        self._emit = emit
        self._interval_s = interval_s
        self._pieces: list[str] = []
        self._lock = threading.Lock()
        self._has_work = threading.Event()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workbench-coalescer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, text: str) -> None:
        """Add a piece; returns at once."""
        with self._lock:
            self._pieces.append(text)
        self._has_work.set()

    def close(self) -> None:
        """Emit what is left and wait for the thread."""
        self._is_closing.set()
        self._has_work.set()
        self._thread.join()

    def __enter__(self) -> Coalescer:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            self._has_work.wait()
            self._has_work.clear()
            # Read before the pieces are taken: a piece that is put before closing is then never left behind.
            is_last_round = self._is_closing.is_set()
            self._flush()
            if is_last_round:
                return
            self._is_closing.wait(self._interval_s)

    def _flush(self) -> None:
        with self._lock:
            text, self._pieces = "".join(self._pieces), []
        if text:
            self._emit(text)
