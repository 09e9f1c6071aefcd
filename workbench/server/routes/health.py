"""GET /health, /ready and /metrics."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from workbench.server.protocol.health import Health
from workbench.server.services import services

__all__ = ["router"]

router = APIRouter(tags=["watch"])


@router.get("/health", response_model=Health)
async def read_health(request: Request, response: Response) -> Health:
    """Whether the process works: 503 if the engine of a loaded model has died; "degraded" if one of several has."""
    host = services(request).host
    if not host.is_healthy:
        response.status_code = 503
        return Health(status="engine_dead")
    return Health(status="degraded" if host.is_degraded else "ok")


@router.get("/ready", response_model=Health)
async def read_readiness(request: Request, response: Response) -> Health:
    """Whether a request would be answered now: 503 while no model is loaded, or while the server stops."""
    parts = services(request)
    is_ready = parts.host.is_ready and not parts.is_draining
    response.status_code = 200 if is_ready else 503
    if is_ready:
        return Health(status="ready")
    if parts.is_draining:
        return Health(status="stopping")
    return Health(status=parts.host.status.state.value if parts.host.is_healthy else "engine_dead")


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def read_metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    text = await asyncio.to_thread(services(request).metrics.text)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
