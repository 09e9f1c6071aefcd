"""What a key may use in a minute and at once, and the headers that say how much of it is left."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from workbench.server.caller import Call
from workbench.server.errors import ApiError, invalid
from workbench.server.settings import RateLimits

__all__ = ["RateLimiter", "TokenBudget"]

_MINUTE_S = 60.0


class TokenBudget:
    """Tokens that flow in evenly, up to a minute's worth, and may be overdrawn by what was not known beforehand.

    Not the library's moving window, which keeps one entry per token and forgets a charge that exceeds the limit.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._read_s = clock()

    @property
    def remaining(self) -> float:
        """Tokens left now; below zero while overdrawn."""
        now_s = self._clock()
        self._level = min(self.per_minute, self._level + (now_s - self._read_s) * self.per_minute / _MINUTE_S)
        self._read_s = now_s
        return self._level

    def charge(self, num_tokens: int) -> None:
        """Take tokens, or give them back with a negative number."""
        self._level = min(self.per_minute, self.remaining - num_tokens)

    def seconds_until(self, num_tokens: float) -> float:
        """How long until so many are left; 0 if they are."""
        return max(0.0, (num_tokens - self.remaining) * _MINUTE_S / self.per_minute)


class RateLimiter:
    """Counts for every key. One event loop uses it; nothing survives the process."""

    def __init__(self, defaults: RateLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._defaults = defaults
        self._clock = clock
        self._requests = MovingWindowRateLimiter(MemoryStorage())
        self._budgets: dict[str, TokenBudget] = {}
        self._in_flight: Counter[str] = Counter()

    def limits_of(self, call: Call) -> RateLimits:
        """The key's own limits, or the server's."""
        return (call.key.limits if call.key else None) or self._defaults

    async def count_request(self, call: Call) -> None:
        """Note one more request; raises a 429 when the minute's are used up."""
        per_minute = self.limits_of(call).requests_per_minute
        if per_minute is None:
            return
        item = RateLimitItemPerMinute(per_minute)
        if not await self._requests.hit(item, call.key_id):
            reset_s = (await self._requests.get_window_stats(item, call.key_id)).reset_time - time.time()
            raise _too_many(f"this key may send {per_minute} requests per minute", reset_s)

    @contextmanager
    def in_flight(self, call: Call) -> Iterator[None]:
        """Hold one of the key's places for requests at once; raises a 429 when all are taken."""
        limit = self.limits_of(call).concurrent_requests
        if limit is not None and self._in_flight[call.key_id] >= limit:
            raise _too_many(f"this key may have {limit} requests in flight at once", 1.0)
        self._in_flight[call.key_id] += 1
        try:
            yield
        finally:
            self._in_flight[call.key_id] -= 1
            if not self._in_flight[call.key_id]:
                del self._in_flight[call.key_id]

    def charge_prompt(self, call: Call, num_tokens: int) -> None:
        """Take a prompt's tokens; raises a 429 when too few are left, a 400 when they would never be enough."""
        budget = self._budget(call)
        if budget is None:
            return
        if num_tokens > budget.per_minute:
            raise invalid(
                f"the prompt has {num_tokens} tokens and this key may use {budget.per_minute} per minute",
                code="tokens_per_minute_exceeded",
            )
        # Also with an empty prompt nothing starts while the last answers are not paid off.
        wait_s = budget.seconds_until(max(1, num_tokens))
        if wait_s > 0:
            raise _too_many(f"this key may use {budget.per_minute} tokens per minute", wait_s)
        budget.charge(num_tokens)

    def charge(self, call: Call, num_tokens: int) -> None:
        """Take an answer's tokens, whether they are left or not; a negative number gives back."""
        budget = self._budget(call)
        if budget is not None:
            budget.charge(num_tokens)

    async def headers(self, call: Call) -> dict[str, str]:
        """What is left, in the API's own header names; nothing for what is unlimited."""
        headers: dict[str, str] = {}
        per_minute = self.limits_of(call).requests_per_minute
        if per_minute is not None:
            window = await self._requests.get_window_stats(RateLimitItemPerMinute(per_minute), call.key_id)
            reset_s = max(0.0, window.reset_time - time.time()) if window.remaining < per_minute else 0.0
            headers |= _headers("requests", per_minute, window.remaining, reset_s)
        budget = self._budget(call)
        if budget is not None:
            left = max(0, math.floor(budget.remaining))
            headers |= _headers("tokens", budget.per_minute, left, budget.seconds_until(budget.per_minute))
        return headers

    def _budget(self, call: Call) -> TokenBudget | None:
        per_minute = self.limits_of(call).tokens_per_minute
        if per_minute is None:
            return None
        budget = self._budgets.get(call.key_id)
        if budget is None or budget.per_minute != per_minute:
            budget = self._budgets[call.key_id] = TokenBudget(per_minute, self._clock)
        return budget


def _headers(what: str, limit: int, remaining: int, reset_s: float) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{what}": str(limit),
        f"x-ratelimit-remaining-{what}": str(remaining),
        f"x-ratelimit-reset-{what}": f"{reset_s:.3f}s",
    }


def _too_many(message: str, wait_s: float) -> ApiError:
    retry_after_s = max(1, math.ceil(wait_s))
    return ApiError(
        429,
        f"{message}: try again in {retry_after_s} s",
        code="rate_limit_exceeded",
        headers={"retry-after": str(retry_after_s)},
    )
