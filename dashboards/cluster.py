"""What runs where: devices, engines, and the balancer between them, as plain values. Measures nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

__all__ = ["ClusterReader", "ClusterView", "ClusterWatch", "DeviceView", "EngineView", "replicas_of_stats"]


@dataclass(frozen=True)
class DeviceView:
    """One device. `memory_share` is what everybody uses of its memory, `load` the share of its batch; both 0 to 1."""

    name: str
    label: str = ""
    memory_share: float | None = None
    total_bytes: int | None = None
    busy_percent: float | None = None
    load: float | None = None


@dataclass(frozen=True)
class EngineView:
    """One engine: the only one, or a replica. None stands for what is not known.

    `load` is the share of its batch in use, `bubble_share` that of its stages' time without work; both 0 to 1.
    `tokens_per_s` are those generated since the last look.
    """

    name: str
    devices: str
    is_alive: bool
    num_in_flight: int | None = None
    load: float | None = None
    requests_total: int | None = None
    generated_tokens_total: int | None = None
    tokens_per_s: float | None = None
    weight_bytes: int | None = None
    kv_bytes: int | None = None
    num_processes: int = 0
    bubble_share: float | None = None


@dataclass(frozen=True)
class ClusterView:
    """All of it. `words` say how the model runs, `degraded` what is less than asked, `balancing` who gets requests."""

    words: str
    engines: tuple[EngineView, ...] = ()
    devices: tuple[DeviceView, ...] = ()
    balancing: str = ""
    degraded: str = ""


class ClusterReader(Protocol):
    """Looks at what a chat source asks. Raises nothing: what cannot be read is said in the view's words."""

    async def read(self) -> ClusterView:
        """How things are now."""
        ...


def replicas_of_stats(
    replicas: Sequence[Mapping[str, Any]], loads: Mapping[Any, float], on: str = "device"
) -> tuple[EngineView, ...]:
    """Engines from the documented figures of a spread model; `loads` are by each replica's first device."""
    return tuple(_replica(values, {str(key): load for key, load in loads.items()}, on) for values in replicas)


def _replica(values: Mapping[str, Any], loads: Mapping[str, float], on: str) -> EngineView:
    ids, ranks = values["gpu_ids"], values["ranks"]
    return EngineView(
        name=f"Replica {values['replica_id']}",
        devices=f"{on}{'s' if len(ids) != 1 else ''} {', '.join(map(str, ids))}",
        is_alive=values["is_alive"],
        num_in_flight=values["num_in_flight"],
        load=loads.get(str(ids[0])),
        requests_total=values["requests_total"],
        # Endpoints before this figure came in do not send it.
        generated_tokens_total=values.get("generated_tokens_total"),
        weight_bytes=sum(rank["weight_bytes"] for rank in ranks),
        kv_bytes=sum(rank["kv_bytes"] for rank in ranks),
        num_processes=len(ranks),
        bubble_share=values["bubble_share"] if len({rank["stage"] for rank in ranks}) > 1 else None,
    )


class ClusterWatch:
    """Reads at most once in `beat_s`, however many pages look, and adds the speeds since the reading before."""

    def __init__(self, reader: ClusterReader, beat_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._reader = reader
        self._beat_s = beat_s
        self._clock = clock
        self._read_s: float | None = None
        self._view = ClusterView("Nothing has been read yet.")

    async def look(self) -> ClusterView:
        """How things are now, or were a moment ago."""
        now_s = self._clock()
        if self._read_s is not None and now_s - self._read_s < self._beat_s:
            return self._view
        seconds = None if self._read_s is None else now_s - self._read_s
        self._read_s = now_s
        before = {engine.name: engine.generated_tokens_total for engine in self._view.engines}
        view = await self._reader.read()
        engines = tuple(replace(e, tokens_per_s=_rate(e, before.get(e.name), seconds)) for e in view.engines)
        self._view = replace(view, engines=engines)
        return self._view


def _rate(engine: EngineView, before: int | None, seconds: float | None) -> float | None:
    total = engine.generated_tokens_total
    if total is None or not engine.is_alive:
        return None
    # A counter that went back belongs to an engine that was started anew.
    if before is None or seconds is None or total < before:
        return 0.0
    return (total - before) / seconds
