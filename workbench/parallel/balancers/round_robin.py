"""Each in turn, whatever their load."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.parallel.balancers.base import Balancer, WorkerLoad, next_id

__all__ = ["RoundRobin"]


class RoundRobin(Balancer):
    """Counts nothing but whose turn it is."""

    name = "round_robin"

    def __init__(self) -> None:
        self._last_id: int | str | None = None

    def choose(self, loads: Sequence[WorkerLoad], prompt: object = None) -> int | str:
        self._last_id = next_id([load.worker_id for load in loads], self._last_id)
        return self._last_id
