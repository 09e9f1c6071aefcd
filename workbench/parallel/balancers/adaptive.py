"""Whoever is expected to answer soonest: measured time per token, requests in flight, and room in the KV cache."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.parallel.balancers.base import Balancer, WorkerLoad
from workbench.parallel.balancers.least_loaded import LeastLoaded

__all__ = ["Adaptive"]

# Below this share of free cache a request probably waits for others to end; keeps the score finite at zero.
_MIN_HEADROOM = 0.02
# A worker that was passed over this many times per worker gets a request, so that an old bad measurement can heal.
_PASSES_PER_WORKER = 16


class Adaptive(Balancer):
    """Takes the lowest seconds_per_token * (num_in_flight + 1) / kv_headroom.

    A worker without a measurement counts as fast as the fastest, an unknown headroom as all free. Equal scores go to
    the fewest in flight, in turns. A worker passed over for long is tried again, unless its cache is full.
    """

    name = "adaptive"
    reads_kv_headroom = True

    def __init__(self) -> None:
        self._ties = LeastLoaded()
        self._num_passes: dict[int | str, int] = {}

    def choose(self, loads: Sequence[WorkerLoad], prompt: object = None) -> int | str:
        chosen = self._overdue(loads)
        if chosen is None:
            scores = _scores(loads)
            lowest = min(scores)
            chosen = self._ties.choose([load for load, score in zip(loads, scores, strict=True) if score == lowest])
        passes = {load.worker_id: self._num_passes.get(load.worker_id, 0) + 1 for load in loads}
        passes[chosen] = 0
        self._num_passes = passes
        return chosen

    def forget(self, worker_id: int | str) -> None:
        self._num_passes.pop(worker_id, None)

    def _overdue(self, loads: Sequence[WorkerLoad]) -> int | str | None:
        limit = _PASSES_PER_WORKER * len(loads)
        for load in loads:
            has_room = load.kv_headroom is None or load.kv_headroom > _MIN_HEADROOM
            if has_room and self._num_passes.get(load.worker_id, 0) >= limit:
                return load.worker_id
        return None


def _scores(loads: Sequence[WorkerLoad]) -> list[float]:
    measured = [load.seconds_per_token for load in loads if load.seconds_per_token is not None]
    fastest = min(measured, default=1.0)
    return [_score(load, fastest) for load in loads]


def _score(load: WorkerLoad, fastest: float) -> float:
    seconds = fastest if load.seconds_per_token is None else load.seconds_per_token
    headroom = 1.0 if load.kv_headroom is None else max(load.kv_headroom, _MIN_HEADROOM)
    return seconds * (load.num_in_flight + 1) / headroom
