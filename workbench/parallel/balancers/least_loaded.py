"""Whoever has the fewest requests in flight."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.parallel.balancers.base import Balancer, WorkerLoad, next_id

__all__ = ["LeastLoaded"]


class LeastLoaded(Balancer):
    """Equals take turns, so that requests one after the other do not all go to the first."""

    name = "least_loaded"

    def __init__(self) -> None:
        self._last_id: int | str | None = None

    def choose(self, loads: Sequence[WorkerLoad], prompt: object = None) -> int | str:
        fewest = min(load.num_in_flight for load in loads)
        ids = [load.worker_id for load in loads]
        candidates = {load.worker_id for load in loads if load.num_in_flight == fewest}
        chosen = next_id(ids, self._last_id)
        while chosen not in candidates:
            chosen = next_id(ids, chosen)
        self._last_id = chosen
        return chosen
