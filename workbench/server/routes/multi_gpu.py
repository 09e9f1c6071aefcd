"""POST /v1/multi-gpu/config and GET /v1/multi-gpu/stats."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Depends, Request

from workbench.backends import Backend, detect
from workbench.server.auth import require_admin
from workbench.server.errors import ApiError, invalid
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

_ONE_DEVICE = "a model runs on one device in this version"


@router.post("/v1/multi-gpu/config", response_model=ErrorBody, dependencies=[Depends(require_admin)])
async def set_multi_gpu(body: MultiDeviceConfig, request: Request) -> ErrorBody:
    """Check a spread over devices against this machine, and say why it cannot be applied."""
    present = await asyncio.to_thread(_gpus)
    missing = [device for device in body.ids if device >= len(present)]
    if missing:
        there = f"devices 0 to {len(present) - 1}" if present else "no GPU that can be used"
        raise invalid(f"gpu_ids: there is no device {missing[0]}, this machine has {there}", param="gpu_ids")
    raise ApiError(501, f"multi-gpu/config: {_ONE_DEVICE}", code="not_implemented", param="strategy")


@router.get("/v1/multi-gpu/stats", response_model=MultiDeviceStatsReply)
async def read_multi_gpu(request: Request, include_metrics: bool = True) -> MultiDeviceStatsReply:
    """Load and memory of every GPU."""
    metrics = DeviceMetrics(loads={}, memory={})
    if include_metrics:
        metrics = await asyncio.to_thread(_metrics, services(request).host)
    return MultiDeviceStatsReply(multi_gpu_stats=MultiDeviceStats(gpu_metrics=metrics, reason=_ONE_DEVICE))


def _gpus() -> list[tuple[Backend, int]]:
    """Every GPU that can be used, as its backend and its index there."""
    return [
        (status.backend, index)
        for status in detect()
        if status.available and status.backend.device_type != "cpu"
        for index in range(len(status.devices))
    ]


def _metrics(host: ModelHost) -> DeviceMetrics:
    memory, loads = {}, {}
    in_use = host.device
    for backend, index in _gpus():
        read = backend.memory(index)
        name = str(index)
        memory[name] = round(1 - read.free_bytes / read.total_bytes, 4) if read.total_bytes else 0.0
        loads[name] = round(host.batch_share, 4) if in_use == (backend.name, index) else 0.0
    return DeviceMetrics(loads=loads, memory=memory)
