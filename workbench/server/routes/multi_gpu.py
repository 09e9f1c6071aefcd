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
    MultiDeviceStats,
    MultiDeviceStatsReply,
)
from workbench.server.protocol.wire import ErrorBody
from workbench.server.services import services

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["devices"])

_ONE_DEVICE = "the endpoint runs its model on one device in this version"


@router.post("/v1/multi-gpu/config", response_model=ErrorBody, dependencies=[Depends(require_admin)])
async def set_multi_gpu(body: MultiDeviceConfig) -> ErrorBody:
    """Hold a spread over devices against this machine, and say why it cannot be applied."""
    try:
        await asyncio.to_thread(choose_devices, body.config)
    except GPUUnavailableError as error:
        raise invalid(str(error), param="gpu_ids", code="gpu_unavailable") from error
    raise invalid(f"multi-gpu/config: {_ONE_DEVICE}", code="not_supported")


@router.get("/v1/multi-gpu/stats", response_model=MultiDeviceStatsReply)
async def read_multi_gpu(request: Request, include_metrics: bool = True) -> MultiDeviceStatsReply:
    """Load and memory of every GPU."""
    metrics = DeviceMetrics(loads={}, memory={})
    if include_metrics:
        metrics = await asyncio.to_thread(_metrics, services(request).host)
    return MultiDeviceStatsReply(multi_gpu_stats=MultiDeviceStats(gpu_metrics=metrics, reason=_ONE_DEVICE))


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
