"""A sliding rate, on a clock of the test's own."""

from __future__ import annotations

import pytest

from workbench.telemetry.recent_rate import RecentRate


def test_it_rises_and_falls_with_what_comes() -> None:
    now_s = [100.0]
    rate = RecentRate(window_s=5, clock=lambda: now_s[0])
    assert rate.per_s() == 0.0
    for _ in range(10):
        rate.add(20)
        now_s[0] += 1
    assert rate.per_s() == pytest.approx(20, rel=0.25)
    now_s[0] += 60
    assert rate.per_s() == 0.0


def test_the_first_burst_is_not_blown_up() -> None:
    rate = RecentRate(clock=lambda: 100.0)
    rate.add(30)
    assert rate.per_s() == 30.0
