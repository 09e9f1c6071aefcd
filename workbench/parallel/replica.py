"""One replica: what a pool needs of its engine, where it is built, and its figures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from workbench.backends import Backend

__all__ = ["EngineGeneration", "PoolStats", "ReplicaDevice", "ReplicaEngine", "ReplicaStats"]


class EngineGeneration(Protocol):
    """What a pool needs of an engine's own generation, whose chunks, results and times it passes on as they are."""

    @property
    def seed(self) -> int: ...

    @property
    def text(self) -> str: ...

    @property
    def timings(self) -> Any: ...

    def abort(self) -> None: ...

    def results(self) -> list[Any]: ...

    def __aiter__(self) -> AsyncIterator[Any]: ...


class ReplicaEngine(Protocol):
    """What a pool needs of an engine; `LlamaGPU` is one.

    One that also has `resume(ended, prompt, messages=..., **sampling)` goes on with a request behind what a dead
    engine's generation holds; it raises RequestError for a request that cannot be resumed.
    """

    def submit(self, prompt: Any = None, *, messages: Any = None, **sampling: Any) -> EngineGeneration: ...

    def stats(self) -> Any: ...

    def unload(self) -> dict[str, int]: ...


@dataclass(frozen=True)
class ReplicaDevice:
    """Where a replica is to be built. `gpu_id` is None on the CPU."""

    backend: Backend
    device_index: int
    gpu_id: int | str | None
    memory_fraction: float


@dataclass(frozen=True)
class ReplicaStats:
    """One replica as the pool sees it."""

    replica_id: int | str
    is_alive: bool
    num_in_flight: int
    requests_total: int
    seconds_per_token: float | None
    kv_headroom: float | None


@dataclass(frozen=True)
class PoolStats:
    """All replicas, and how many requests had to move because theirs died, of those `resumed` in the middle."""

    balancer: str
    replicas: tuple[ReplicaStats, ...]
    requests_moved_total: int
    requests_resumed_total: int = 0
