"""The engines and devices behind an endpoint, for the Cluster tab: what its routes tell, in words where they don't."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from dashboards.cluster import ClusterView, DeviceView, EngineView, replicas_of_stats
from dashboards.sources.endpoint_source import EndpointSource
from workbench.errors import WorkbenchError

__all__ = ["EndpointCluster"]

_STATS = "/v1/multi-gpu/stats"
# As Prometheus reads them, from us and from vLLM alike, whatever stands before the name.
_RUNNING, _WAITING, _TOKENS = "num_requests_running", "num_requests_waiting", "generation_tokens_total"


class EndpointCluster:
    """Asks the endpoint of `source`."""

    def __init__(self, source: EndpointSource) -> None:
        self._source = source

    async def read(self) -> ClusterView:
        """How things are now."""
        health, figures = await self._health(), await self._figures()
        try:
            stats = json.loads(await self._source.read_text(_STATS))["multi_gpu_stats"]
            return _view(stats, health, figures)
        # What answers there may be anything.
        except (WorkbenchError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            words = f"{self._source.url} says nothing of its devices (it has no {_STATS})."
            return ClusterView(words, _engine(health, figures) if health or figures else ())

    async def _health(self) -> str:
        """The endpoint's word for how it is; empty where it has none."""
        try:
            return str(json.loads(await self._source.read_text("/health", any_status=True))["status"])
        except (WorkbenchError, ValueError, KeyError, TypeError):
            return ""

    async def _figures(self) -> dict[str, float]:
        """Some of the endpoint's figures for Prometheus, added up over its models; those that it has."""
        try:
            lines = (await self._source.read_text("/metrics")).splitlines()
        except WorkbenchError:
            return {}
        figures: dict[str, float] = {}
        for name, value in _samples(lines):
            for wanted in (_RUNNING, _WAITING, _TOKENS):
                if name.endswith(wanted):
                    figures[wanted] = figures.get(wanted, 0.0) + value
        return figures


def _samples(lines: list[str]) -> Iterator[tuple[str, float]]:
    for line in lines:
        name, _, value = line.rpartition(" ")
        if not name.startswith("#"):
            try:
                yield name.partition("{")[0], float(value)
            except ValueError:
                continue


def _engine(health: str, figures: Mapping[str, float]) -> tuple[EngineView, ...]:
    known = _RUNNING in figures
    return (
        EngineView(
            "The engine",
            f"behind the endpoint; its health: {health or 'not told'}",
            health in ("ok", "degraded", ""),
            num_in_flight=int(figures[_RUNNING] + figures.get(_WAITING, 0)) if known else None,
            generated_tokens_total=int(figures[_TOKENS]) if _TOKENS in figures else None,
        ),
    )


def _view(stats: Mapping[str, Any], health: str, figures: Mapping[str, float]) -> ClusterView:
    config, balancing = stats.get("gpu_config"), stats.get("load_balancing") or {}
    metrics = stats["gpu_metrics"]
    names = sorted({*metrics["memory"], *metrics["loads"]}, key=lambda name: (len(name), name))
    devices = tuple(
        DeviceView(f"device {n}", memory_share=metrics["memory"].get(n), load=metrics["loads"].get(n)) for n in names
    )
    if not config:
        words = f"One engine answers ({stats['reason']}), so there is nothing to balance."
        return ClusterView(words, _engine(health, figures), devices)
    num_replicas, total = len(stats["replicas"]), balancing.get("total_requests", 0)
    shared = f"{config['load_balancing']} shares {total} requests out among {num_replicas} replicas."
    return ClusterView(
        f"Strategy {config['strategy']}: {stats['reason']}",
        replicas_of_stats(stats["replicas"], balancing.get("gpu_loads", {})),
        devices,
        balancing=shared if num_replicas > 1 else "",
        degraded=stats.get("degraded_reason") or "",
    )
