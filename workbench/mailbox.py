"""Values on their way from one thread to one reader, who waits in a thread or in an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

__all__ = ["Mailbox"]

_Value = TypeVar("_Value")


class Mailbox(Generic[_Value]):
    """A queue without an end of its own: who fills it says which value is the last."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Value] = SimpleQueue()
        self._wake: Callable[[], object] | None = None

    def put(self, value: _Value) -> None:
        self._queue.put(value)
        wake = self._wake
        if wake is not None:
            try:
                wake()
            except RuntimeError:  # the reader's event loop is closed: nobody is left to tell
                self._wake = None

    def get(self, timeout_s: float | None = None) -> _Value:
        """Wait for the next value; TimeoutError after `timeout_s` seconds."""
        try:
            return self._queue.get(timeout=timeout_s)
        except Empty:
            raise TimeoutError(f"no output within {timeout_s} s") from None

    async def get_async(self) -> _Value:
        """Wait for the next value without holding up the reader's event loop."""
        event, loop = asyncio.Event(), asyncio.get_running_loop()
        # Set before looking, so that a value that arrives in between wakes us.
        self._wake = lambda: loop.call_soon_threadsafe(event.set)
        try:
            while True:
                try:
                    return self._queue.get_nowait()
                except Empty:
                    await event.wait()
                    event.clear()
        finally:
            self._wake = None
