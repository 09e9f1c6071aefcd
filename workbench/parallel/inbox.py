"""Chunks on their way from the pump to one reader, who waits in a thread or in an event loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

__all__ = ["Inbox"]


class Inbox:
    """A queue that ends: after `close` and once it is empty, `get` gives None."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._wake: Callable[[], object] | None = None

    def put(self, chunk: object) -> None:
        self._queue.put(chunk)
        wake = self._wake
        if wake is not None:
            try:
                wake()
            except RuntimeError:  # the reader's event loop is closed: nobody is left to tell
                self._wake = None

    def close(self) -> None:
        """Nothing more will come."""
        self.put(None)

    def get(self, timeout_s: float | None = None) -> Any | None:
        """Wait for the next chunk; TimeoutError after `timeout_s` seconds."""
        try:
            return self._queue.get(timeout=timeout_s)
        except Empty:
            raise TimeoutError(f"no output within {timeout_s} s") from None

    async def get_async(self) -> Any | None:
        """Wait for the next chunk without holding up the reader's event loop."""
        event, loop = asyncio.Event(), asyncio.get_running_loop()
        # Set before looking, so that a chunk that arrives in between wakes us.
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
