"""POST /v1/multi-gpu/config and GET /v1/multi-gpu/stats."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Depends, Request

from workbench.backends import detect
from workbench.errors import GPUUnavailableError
from workbench.parallel import choose_devices
from workbench.server.auth import require_admin
from workbench.server.errors import invalid
from workbench.server.json_body import JsonRoute
from workbench.server.model_host import ModelHost
from workbench.server.protocol.parallel import (
    DeviceMetrics,
    MultiDeviceConfig,
    MultiDeviceConfigReply,
    MultiDeviceStats,
    MultiDeviceStatsReply,
)
from workbench.server.services import services
from workbench.spread_stats import spread_stats

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["devices"])

_ONE_DEVICE = "the model runs on one device"


@router.post("/v1/multi-gpu/config", response_model=MultiDeviceConfigReply, dependencies=[Depends(require_admin)])
async def set_multi_gpu(body: MultiDeviceConfig, request: Request) -> MultiDeviceConfigReply:
    """Load the present model anew over these devices; where it is over them already, start anew what of it has died.

    What this machine or the model cannot do is a 400.
    """
    backend = "cpu"
    if not body.on_cpu:
        try:
            backend = (await asyncio.to_thread(choose_devices, body.config)).backend.name
        except GPUUnavailableError as error:
            raise invalid(str(error), param="gpu_ids", code="gpu_unavailable") from error
    # A change that has begun goes on to its end, whether or not the client waits for it.
    model = await asyncio.shield(services(request).host.spread(body.config, backend))
    stats = await asyncio.to_thread(spread_stats, model.llm)
    return MultiDeviceConfigReply(gpu_config=stats.gpu_config, runner=model.llm.runner_reason)


@router.get("/v1/multi-gpu/stats", response_model=MultiDeviceStatsReply)
async def read_multi_gpu(request: Request, include_metrics: bool = True) -> MultiDeviceStatsReply:
    """Load and memory of every GPU; requests, processes and idle share of a model that is spread."""
    host = services(request).host
    metrics = DeviceMetrics(loads={}, memory={})
    if include_metrics:
        metrics = await asyncio.to_thread(_metrics, host)
    llm = host.llm
    if llm is not None and llm.cluster is not None:
        counts = await asyncio.to_thread(llm.replica_counts)
        words = ", ".join(f"{count} {state.lower()}" for state, count in counts.items()) or "none"
        return MultiDeviceStatsReply(
            multi_gpu_stats=MultiDeviceStats(
                state="running" if llm.degraded_reason is None else "degraded",
                gpu_metrics=metrics,
                degraded_reason=llm.degraded_reason,
                reason=f"{llm.runner_reason}; replicas by state: {words}",
            )
        )
    if llm is None:
        unloaded = MultiDeviceStats(state="unloaded", gpu_metrics=metrics, reason="no model is loaded")
        return MultiDeviceStatsReply(multi_gpu_stats=unloaded)
    if llm.parallel is None:
        one = MultiDeviceStats(state="running", gpu_metrics=metrics, reason=_ONE_DEVICE)
        if llm.death is not None:
            one = MultiDeviceStats(state="dead", gpu_metrics=metrics, reason=host.why_not_served)
        return MultiDeviceStatsReply(multi_gpu_stats=one)
    stats = await asyncio.to_thread(spread_stats, llm)
    if include_metrics:
        loads = {str(gpu_id): round(load, 4) for gpu_id, load in stats.loads.items()}
        metrics = DeviceMetrics(loads=metrics.loads | loads, memory=metrics.memory)
    return MultiDeviceStatsReply(
        multi_gpu_stats=MultiDeviceStats(
            state=stats.state,
            gpu_config=stats.gpu_config,
            load_balancing=stats.load_balancing,
            gpu_metrics=metrics,
            replicas=stats.replicas,
            degraded_reason=llm.degraded_reason,
            reason=host.why_not_served if stats.state == "dead" else llm.runner_reason,
        )
    )


def _metrics(host: ModelHost) -> DeviceMetrics:
    memory, loads = {}, {}
    in_use = host.device
    gpus = [status for status in detect() if status.available and status.backend.device_type != "cpu"]
    for status in gpus[:1]:
        for device in status.devices:
            name = str(device.index)
            memory[name] = round(1 - device.free_bytes / device.total_bytes, 4) if device.total_bytes else 0.0
            is_in_use = in_use == (status.backend.name, device.index)
            loads[name] = round(host.batch_share, 4) if is_in_use else 0.0
    return DeviceMetrics(loads=loads, memory=memory)
