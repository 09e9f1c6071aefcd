"""The engines and devices of this process, for the Cluster tab."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from dashboards.cluster import ClusterView, DeviceView, EngineView, replicas_of_stats
from workbench.backends import DeviceInfo, detect
from workbench.errors import EngineStoppedError
from workbench.session import Session
from workbench.spread_stats import spread_stats

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["SessionCluster"]


class SessionCluster:
    """Looks at what `session` has loaded. `newest` gives the newest number of each measured series, for busy GPUs."""

    def __init__(self, session: Session, newest: Callable[[], Mapping[str, float | None]] = dict) -> None:
        self._session = session
        self._newest = newest

    async def read(self) -> ClusterView:
        """How things are now. May wait for a step of the engine to end."""
        return await asyncio.to_thread(self._read)

    async def restart_stopped(self) -> list[int]:
        """Start replicas anew that have stopped; gives their numbers. Raises what starting one raises."""
        return await asyncio.to_thread(self._restart_stopped)

    def _restart_stopped(self) -> list[int]:
        return self._session.llm.restart_stopped()

    def _read(self) -> ClusterView:
        try:
            llm = self._session.llm
        except EngineStoppedError:
            return ClusterView("No model is loaded.", devices=self._devices({}))
        try:
            return self._one_engine(llm) if llm.parallel is None else self._spread(llm)
        except EngineStoppedError as error:
            return ClusterView(str(error), devices=self._devices({}))

    def _one_engine(self, llm: LlamaGPU) -> ClusterView:
        words = (
            f"One engine answers on {llm.backend.name}, so there is nothing to balance. "
            "With parallel=GPUConfig(...) a model is spread over several devices, or copied to each."
        )
        load = num_in_flight = total = requests = None
        if llm.is_loaded:
            stats = llm.stats()
            num_in_flight, total = stats.num_running + stats.num_waiting, stats.generated_tokens_total
            load, requests = min(1.0, num_in_flight / llm.limits.max_num_seqs), stats.requests_total
        engine = EngineView(
            "The engine",
            f"on {llm.backend.name}: {llm.runner_reason}",
            llm.is_loaded,
            num_in_flight=num_in_flight,
            load=load,
            requests_total=requests,
            generated_tokens_total=total,
            weight_bytes=llm.weight_bytes,
            kv_bytes=llm.limits.kv_bytes,
        )
        in_use = f"{llm.backend.name}:{llm.device_index}"
        return ClusterView(words, (engine,), self._devices({} if load is None else {in_use: load}))

    def _spread(self, llm: LlamaGPU) -> ClusterView:
        stats = spread_stats(llm)
        config, counts = stats.gpu_config, stats.load_balancing
        on = "GPU" if llm.backend.device_type != "cpu" else "rank"
        loads = {f"{llm.backend.name}:{gpu_id}": load for gpu_id, load in stats.loads.items()}
        return ClusterView(
            f"Strategy {config['strategy']}: {llm.runner_reason}",
            replicas_of_stats(stats.replicas, stats.loads, on),
            self._devices(loads),
            balancing=_balancing(str(config["load_balancing"]), len(stats.replicas), counts),
            degraded=stats.reason or "",
        )

    def _devices(self, loads: Mapping[str, float]) -> tuple[DeviceView, ...]:
        newest = self._newest()
        found = [(f"{s.name}:{device.index}", device) for s in detect() if s.available for device in s.devices]
        return tuple(_device(name, device, loads, newest) for name, device in found)


def _device(
    name: str, device: DeviceInfo, loads: Mapping[str, float], newest: Mapping[str, float | None]
) -> DeviceView:
    is_cpu = name.startswith("cpu")
    return DeviceView(
        name,
        device.name,
        1 - device.free_bytes / device.total_bytes if device.total_bytes else None,
        device.total_bytes,
        newest.get("cpu_busy_percent" if is_cpu else f"{name}_busy_percent"),
        loads.get(name),
    )


def _balancing(balancer: str, num_replicas: int, counts: Mapping[str, object]) -> str:
    if num_replicas < 2:
        return ""
    return f"{balancer} shares {counts['total_requests']} requests out among {num_replicas} replicas."
