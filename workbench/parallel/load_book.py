"""Who has how many requests in flight, and how fast their answers came. Pure book-keeping; its owner holds the lock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from workbench.errors import ConfigError
from workbench.parallel.balancers import WorkerLoad

__all__ = ["LoadBook"]

# Share of the newest request in the smoothed time per token: the gain that TCP uses for round trips (RFC 6298).
_GAIN = 1 / 8


@dataclass
class _Entry:
    num_in_flight: int = 0
    num_assigned_total: int = 0
    seconds_per_token: float | None = None


class LoadBook:
    """Counts per worker id. `begin` and `end` come in pairs."""

    def __init__(self, worker_ids: Iterable[int | str]) -> None:
        self._entries = {worker_id: _Entry() for worker_id in worker_ids}

    def begin(self, worker_id: int | str) -> None:
        """A request goes to the worker."""
        entry = self._entries[worker_id]
        entry.num_in_flight += 1
        entry.num_assigned_total += 1

    def end(self, worker_id: int | str, seconds_per_token: float | None = None) -> None:
        """One of the worker's requests is over, however it went. Raises ConfigError if it has none."""
        entry = self._entries.get(worker_id)
        if entry is None or entry.num_in_flight == 0:
            raise ConfigError(f"worker {worker_id!r} has no request in flight that could end")
        entry.num_in_flight -= 1
        if seconds_per_token is not None:
            before = seconds_per_token if entry.seconds_per_token is None else entry.seconds_per_token
            entry.seconds_per_token = before + _GAIN * (seconds_per_token - before)

    def reset_speed(self, worker_id: int | str) -> None:
        """The worker was started anew: what was measured is no longer true of it."""
        self._entries[worker_id].seconds_per_token = None

    def num_in_flight(self, worker_id: int | str) -> int:
        """Requests of a worker that have begun and not ended; 0 for an unknown one."""
        entry = self._entries.get(worker_id)
        return 0 if entry is None else entry.num_in_flight

    def num_assigned_total(self, worker_id: int | str) -> int:
        """Requests that the worker was ever given."""
        return self._entries[worker_id].num_assigned_total

    def loads(self, worker_ids: Iterable[int | str], headroom: Mapping[int | str, float | None]) -> list[WorkerLoad]:
        """What a balancer is told of these workers."""
        entries = ((worker_id, self._entries[worker_id]) for worker_id in worker_ids)
        return [
            WorkerLoad(worker_id, entry.num_in_flight, entry.seconds_per_token, headroom.get(worker_id))
            for worker_id, entry in entries
        ]
