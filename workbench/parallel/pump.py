"""One event loop in a thread of its own, in which short coroutines pass on what engines produce."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

__all__ = ["Pump"]

_JOIN_LIMIT_S = 10.0


class Pump:
    """Runs coroutines until `stop`; a context manager. `spawn` may be called from any thread."""

    def __init__(self, name: str = "workbench-replicas") -> None:
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock = threading.Lock()
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> bool:
        """Start a coroutine in the loop; False, and it is closed unrun, after `stop`."""
        with self._lock:
            if not self._is_stopped:
                self._loop.call_soon_threadsafe(self._start, coroutine)
                return True
        coroutine.close()
        return False

    def stop(self) -> None:
        """Cancel what still runs and end the thread. Stopping twice is harmless."""
        with self._lock:
            if self._is_stopped:
                return
            self._is_stopped = True
            self._loop.call_soon_threadsafe(self._loop.stop)
        # The last reference to a pool can be dropped in this very thread, which cannot wait for itself.
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_LIMIT_S)

    def __enter__(self) -> Pump:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            # A task that is cancelled before its first step never runs its `finally`: let each take that step.
            self._loop.run_until_complete(asyncio.sleep(0))
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()
