"""What a balancer is told and what it answers. Pure: no clock, no lock, no device; whoever owns one holds the lock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Balancer", "WorkerLoad", "next_id"]


@dataclass(frozen=True)
class WorkerLoad:
    """One GPU or replica as it is now.

    `seconds_per_token` is smoothed over finished requests and None before the first. `kv_headroom` is the free share
    of its cache (or, for a bare GPU, of its memory), 0 to 1, None while unknown.
    """

    worker_id: int | str
    num_in_flight: int = 0
    seconds_per_token: float | None = None
    kv_headroom: float | None = None


class Balancer(ABC):
    """Chooses who takes the next request."""

    name: str
    # Whether `kv_headroom` matters to the choice: reading it costs the engine a message.
    reads_kv_headroom: bool = False

    @abstractmethod
    def choose(self, loads: Sequence[WorkerLoad], prompt: object = None) -> int | str:
        """The id of one of `loads`, which is never empty. `prompt` is text, token ids or messages, None if unknown."""

    def forget(self, worker_id: int | str) -> None:  # noqa: B027 - most balancers remember nothing of a worker
        """The worker's memory is gone (it died or was started anew)."""


def next_id(worker_ids: Sequence[int | str], last_id: int | str | None) -> int | str:
    """The id that follows `last_id` in the order given, the first after the last one or after an id that is gone."""
    if last_id not in worker_ids:
        return worker_ids[0]
    return worker_ids[(worker_ids.index(last_id) + 1) % len(worker_ids)]
