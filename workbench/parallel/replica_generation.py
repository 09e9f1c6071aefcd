"""A request to a pool as its caller sees it: the surface of the engine's own, whichever replica serves it."""

from __future__ import annotations

import copy
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from workbench.mailbox import Mailbox
from workbench.parallel.replica import EngineGeneration

__all__ = ["ReplicaGeneration"]


class ReplicaGeneration:
    """Chunks as they come, the whole at the end, and a way to stop it; chunks and results are the engine's own objects.

    Reading it works as with the engine's Generation: iterate (also with `async for`; leaving the loop aborts), or wait
    in `result()`. `replica_id` is who serves it, which changes if that replica dies.
    """

    def __init__(self, request_id: str, owner: object) -> None:
        self.request_id = request_id
        self.owner = owner
        self.replica_id: int | str | None = None
        self.is_aborted = False
        self._inner: EngineGeneration | None = None
        self._error: BaseException | None = None
        # Ends with None.
        self._inbox: Mailbox[Any] = Mailbox()
        self._is_read_to_end = False
        self._lock = threading.Lock()

    @property
    def is_finished(self) -> bool:
        """Whether the end has been read."""
        return self._is_read_to_end

    @property
    def seed(self) -> int:
        """The seed of the random choices, drawn by the engine if none was given."""
        return self._serving.seed

    @property
    def text(self) -> str:
        """Text of the first answer so far."""
        return self._serving.text

    @property
    def timings(self) -> Any:
        """Times of the first answer, None before it has ended; of the serving replica only."""
        return self._serving.timings

    def abort(self) -> None:
        """Ask the replica to stop. A finished request is left as it is."""
        with self._lock:
            self.is_aborted = self.is_aborted or not self._is_read_to_end
            inner = self._inner
        if inner is not None and not self._is_read_to_end:
            inner.abort()

    def __iter__(self) -> Iterator[Any]:
        try:
            while (chunk := self._next(None)) is not None:
                yield chunk
        finally:
            self.abort()

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            while not self._is_read_to_end:
                chunk = self._take(await self._inbox.get_async())
                if chunk is not None:
                    yield chunk
        finally:
            self.abort()

    def result(self, timeout_s: float | None = None) -> Any:
        """Wait for the first answer's end. TimeoutError leaves the request running; an interrupt aborts it."""
        return self.results(timeout_s)[0]

    def results(self, timeout_s: float | None = None) -> list[Any]:
        """Wait for all answers. `timeout_s` bounds the wait for each piece of output."""
        try:
            while self._next(timeout_s) is not None:
                pass
        except KeyboardInterrupt:
            self.abort()
            raise
        self._raise_error()
        return self._serving.results()

    async def aresult(self) -> Any:
        """`result()` for an event loop; being cancelled aborts the request."""
        async for _ in self:
            pass
        return self.results()[0]

    def serve_by(self, replica_id: int | str, inner: EngineGeneration) -> None:
        """For the pool: this replica's generation is now the one behind this."""
        with self._lock:
            self.replica_id, self._inner = replica_id, inner
            is_aborted = self.is_aborted
        if is_aborted:
            inner.abort()

    def put(self, chunk: object) -> None:
        """For the pool: the replica produced a chunk."""
        self._inbox.put(chunk)

    def end(self, error: BaseException | None = None) -> None:
        """For the pool: the request is over."""
        # Without its traceback, whose frames would keep the engine alive.
        self._error = None if error is None else error.with_traceback(None)
        self._inbox.put(None)

    @property
    def _serving(self) -> EngineGeneration:
        # The pool hands nothing out before a replica has taken it.
        assert self._inner is not None
        return self._inner

    def _next(self, timeout_s: float | None) -> Any | None:
        return None if self._is_read_to_end else self._take(self._inbox.get(timeout_s))

    def _take(self, chunk: Any | None) -> Any | None:
        if chunk is None:
            self._is_read_to_end = True
            self._raise_error()
        return chunk

    def _raise_error(self) -> None:
        if self._error is not None:
            raise copy.copy(self._error) from self._error.__cause__
