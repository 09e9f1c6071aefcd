"""Who goes next when more is asked than runs at once: keys take turns, so one key's flood does not delay another's."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from workbench.server.errors import ApiError

__all__ = ["FairQueue"]


@dataclass(eq=False)
class _Waiter:
    weight: int
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class FairQueue:
    """Hands out room in the engine's batch, counted in answers. One event loop uses it.

    `capacity()` is the number of answers that run at once, read at each turn. `refused(reason)` hears of every
    request that is turned away.
    """

    def __init__(
        self,
        capacity: Callable[[], int],
        *,
        max_waiting: int,
        timeout_s: float,
        refused: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._capacity = capacity
        self._max_waiting = max_waiting
        self._timeout_s = timeout_s
        self._refused = refused
        self.num_running = 0
        # Key -> its waiters in order of arrival. The keys' own order is that of their turns.
        self._waiting: dict[str, deque[_Waiter]] = {}

    @property
    def num_waiting(self) -> int:
        """How many are waiting now."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def room(self, key_id: str, weight: int, *, may_overfill: bool = False) -> AsyncIterator[None]:
        """Wait for room for `weight` answers and hold it. Raises a 503 when too many wait, or after the time limit.

        With `may_overfill` the number of those waiting is not looked at: for the further prompts of a request that
        is already in.
        """
        # What could never fit alone may run alone.
        weight = min(weight, self._capacity())
        await self._enter(key_id, weight, may_overfill)
        try:
            yield
        finally:
            self.num_running -= weight
            self._admit()

    async def _enter(self, key_id: str, weight: int, may_overfill: bool) -> None:
        if not self._waiting and self._fits(weight):
            self.num_running += weight
            return
        if not may_overfill and self.num_waiting >= self._max_waiting:
            self._refused("queue_full")
            raise _busy(f"{self.num_waiting} requests are waiting already")
        waiter = _Waiter(weight)
        self._waiting.setdefault(key_id, deque()).append(waiter)
        try:
            async with asyncio.timeout(self._timeout_s):
                await waiter.turn
        except TimeoutError:
            self._leave(key_id, waiter)
            self._refused("queue_timeout")
            raise _busy(f"no room within {self._timeout_s:g} s") from None
        except BaseException:
            self._leave(key_id, waiter)
            raise

    def _fits(self, weight: int) -> bool:
        return self.num_running == 0 or self.num_running + weight <= self._capacity()

    def _admit(self) -> None:
        """Let in the first waiter of the key whose turn it is, as long as there is room."""
        while self._waiting:
            key_id, waiters = next(iter(self._waiting.items()))
            if not self._fits(waiters[0].weight):
                return
            waiter = waiters.popleft()
            del self._waiting[key_id]
            if waiters:
                self._waiting[key_id] = waiters
            if not waiter.turn.done():
                self.num_running += waiter.weight
                waiter.turn.set_result(None)

    def _leave(self, key_id: str, waiter: _Waiter) -> None:
        """Take out a waiter that gave up, or give back the room that it was given in the same moment."""
        waiters = self._waiting.get(key_id)
        if waiters is not None and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiting[key_id]
        elif waiter.turn.done() and not waiter.turn.cancelled():
            self.num_running -= waiter.weight
        self._admit()

    def check_integrity(self) -> None:
        """Raise AssertionError if an empty line is kept, or somebody waits who could go."""
        assert all(self._waiting.values()), "an empty line is kept"
        assert self.num_running >= 0, "more left than came"
        if self._waiting:
            assert not self._fits(next(iter(self._waiting.values()))[0].weight), "somebody waits without need"


def _busy(why: str) -> ApiError:
    return ApiError(
        503, f"the server is busy: {why}; try again later", code="server_overloaded", headers={"retry-after": "2"}
    )
