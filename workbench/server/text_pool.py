"""Threads for work on text that would hold up the event loop: templates, tokenising, compiling a structure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from workbench.server.errors import ApiError

__all__ = ["TextPool"]

T = TypeVar("T")


class TextPool:
    """A few threads with a bounded line in front of them. Work cannot be interrupted, only no longer waited for."""

    def __init__(self, num_threads: int = 4, *, max_waiting: int = 512, timeout_s: float = 30.0) -> None:
        self._executor = ThreadPoolExecutor(num_threads, thread_name_prefix="workbench-text")
        self._max_waiting = max_waiting
        self._timeout_s = timeout_s
        self._num_inside = 0

    async def run(self, work: Callable[[], T]) -> T:
        """What `work()` gives, from a thread. Raises a 503 when too much waits, or it takes too long."""
        if self._num_inside >= self._max_waiting:
            raise _busy("too many prompts are being prepared")
        self._num_inside += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        future.add_done_callback(self._leave)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(future)
        except TimeoutError:
            raise _busy(f"preparing the prompt took longer than {self._timeout_s:g} s") from None

    def stop(self) -> None:
        """End the threads after the work in hand."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _leave(self, future: asyncio.Future[T]) -> None:
        self._num_inside -= 1
        # Nobody may be waiting any more; the error is looked at so that asyncio does not report it.
        if not future.cancelled():
            future.exception()


def _busy(why: str) -> ApiError:
    return ApiError(503, f"the server is busy: {why}", code="server_overloaded", headers={"retry-after": "2"})
