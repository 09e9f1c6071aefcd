"""What a key may use: budgets that flow, debts, refunds, and headers that add up."""

from __future__ import annotations

import pytest

from workbench.server.auth import FailureLimit
from workbench.server.caller import Call
from workbench.server.errors import ApiError
from workbench.server.rate_limits import RateLimiter, TokenBudget
from workbench.server.settings import RateLimits


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def test_a_budget_fills_evenly_and_never_over_a_minutes_worth(clock):
    budget = TokenBudget(600, clock)
    budget.charge(600)
    assert budget.remaining == 0 and budget.seconds_until(100) == 10
    clock.now_s = 10
    assert budget.remaining == pytest.approx(100)
    clock.now_s = 1000
    assert budget.remaining == 600


def test_a_debt_is_paid_off_before_anything_else(clock):
    budget = TokenBudget(60, clock)
    budget.charge(90)
    assert budget.remaining == -30 and budget.seconds_until(1) == 31
    budget.charge(-90)
    assert budget.remaining == 60


def test_a_prompt_is_charged_or_refused(clock):
    limiter, call = RateLimiter(RateLimits(tokens_per_minute=100), clock), Call("r", "c")
    limiter.charge_prompt(call, 60)
    with pytest.raises(ApiError) as caught:
        limiter.charge_prompt(call, 60)
    assert caught.value.status_code == 429 and caught.value.headers["retry-after"] == "12"
    limiter.charge_prompt(call, 40)
    limiter.charge(call, 50)
    with pytest.raises(ApiError):
        limiter.charge_prompt(call, 0)


def test_places_are_given_back_also_after_an_error():
    limiter, call = RateLimiter(RateLimits(concurrent_requests=1)), Call("r", "c")
    with pytest.raises(KeyError), limiter.in_flight(call):
        with pytest.raises(ApiError), limiter.in_flight(call):
            pass
        raise KeyError
    with limiter.in_flight(call):
        pass


async def test_headers_count_down_and_agree(clock):
    limiter = RateLimiter(RateLimits(requests_per_minute=3, tokens_per_minute=60), clock)
    call = Call("r", "c")
    assert (await limiter.headers(call))["x-ratelimit-remaining-requests"] == "3"
    for left in (2, 1, 0):
        await limiter.count_request(call)
        assert (await limiter.headers(call))["x-ratelimit-remaining-requests"] == str(left)
    limiter.charge_prompt(call, 20)
    headers = await limiter.headers(call)
    assert headers["x-ratelimit-remaining-tokens"] == "40" and headers["x-ratelimit-reset-tokens"] == "20.000s"
    with pytest.raises(ApiError):
        await limiter.count_request(call)


async def test_without_limits_nothing_is_said_and_nothing_refused():
    limiter, call = RateLimiter(RateLimits()), Call("r", "c")
    for _ in range(50):
        await limiter.count_request(call)
        limiter.charge_prompt(call, 10**6)
    assert await limiter.headers(call) == {}


def test_failures_are_counted_by_minute_and_few_addresses_are_kept(clock):
    limit = FailureLimit(per_minute=2, max_addresses=3, clock=clock)
    assert [limit.count("a") for _ in range(3)] == [True, True, False]
    clock.now_s = 61
    assert limit.count("a")
    for address in "bcdef":
        assert limit.count(address)
    assert len(limit._windows) == 3
