"""Turns an engine's counters into rates and levels. Knows the names of its statistics, not the engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from workbench.errors import EngineStoppedError

__all__ = ["EngineCounters", "EngineRates"]


class EngineCounters(Protocol):
    """The part of an engine's statistics that is read here; `*_total` only ever grow within one engine."""

    num_running: int
    num_waiting: int
    kv_blocks_used: int
    kv_blocks_total: int
    prompt_tokens_total: int
    generated_tokens_total: int


class EngineRates:
    """Probe: tokens per second since the last reading, requests running and waiting, share of the KV pool in use.

    `stats` gives the engine's counters, or None while there is no engine: then nothing is generated, the rates are
    zero and the levels are left out. A counter that went back belongs to a new engine and starts a new count.
    """

    def __init__(self, stats: Callable[[], EngineCounters | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._stats = stats
        self._clock = clock
        self._last: tuple[float, int, int] | None = None

    def read(self) -> Mapping[str, float]:
        """`generated_tokens_per_s`, `prompt_tokens_per_s`, and with an engine also its levels."""
        try:
            counters = self._stats()
        except EngineStoppedError:
            counters = None
        if counters is None:
            self._last = None
            return {"generated_tokens_per_s": 0.0, "prompt_tokens_per_s": 0.0}
        return {**self._rates(counters), **_levels(counters)}

    def _rates(self, counters: EngineCounters) -> dict[str, float]:
        now_s = self._clock()
        before = self._last
        self._last = (now_s, counters.generated_tokens_total, counters.prompt_tokens_total)
        if before is None or now_s <= before[0]:
            return {"generated_tokens_per_s": 0.0, "prompt_tokens_per_s": 0.0}
        seconds = now_s - before[0]
        return {
            "generated_tokens_per_s": max(0, counters.generated_tokens_total - before[1]) / seconds,
            "prompt_tokens_per_s": max(0, counters.prompt_tokens_total - before[2]) / seconds,
        }


def _levels(counters: EngineCounters) -> dict[str, float]:
    levels = {"requests_running": float(counters.num_running), "requests_waiting": float(counters.num_waiting)}
    if counters.kv_blocks_total:
        levels["kv_used_fraction"] = counters.kv_blocks_used / counters.kv_blocks_total
    return levels
