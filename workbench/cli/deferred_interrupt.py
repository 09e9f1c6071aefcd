"""Ctrl-C while a model is opened, taken at a safe point: libraries crash or swallow it while they are imported."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["DeferredInterrupt"]


class DeferredInterrupt:
    """Inside the `with` block the first Ctrl-C waits for `check()` or the end of the block, a second one acts at once.

    Either way it is a KeyboardInterrupt; it also replaces the error of a job that died of the same Ctrl-C.
    Outside the main thread, which gets no signals, this does nothing.
    """

    def __init__(self) -> None:
        self._is_pending = False
        self._previous: Any = None

    def check(self) -> None:
        """Raise the KeyboardInterrupt that waits, if one does."""
        if self._is_pending:
            raise KeyboardInterrupt

    def __enter__(self) -> DeferredInterrupt:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
        if kind is None or issubclass(kind, Exception):
            self.check()

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.check()
        self._is_pending = True
