"""POST /v1/quantization/config and /v1/quantization/cache, GET /v1/quantization/stats."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request

from workbench.backends import parse_dtype
from workbench.errors import ConfigError
from workbench.server.auth import require_admin
from workbench.server.errors import ApiError, invalid
from workbench.server.json_body import JsonRoute
from workbench.server.protocol.quantization import (
    CacheRequest,
    PrecisionConfig,
    PrecisionConfigReply,
    PrecisionStats,
    PrecisionStatsReply,
)
from workbench.server.protocol.wire import ErrorBody
from workbench.server.services import services

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["precision"])

_MIB = 1024**2


@router.post("/v1/quantization/config", response_model=PrecisionConfigReply, dependencies=[Depends(require_admin)])
async def set_precision(body: PrecisionConfig, request: Request) -> PrecisionConfigReply:
    """Choose the precision that /v1/models/load uses from now on."""
    try:
        precision = parse_dtype(body.quantization_type)
    except ConfigError:
        raise _not_built(f"quantization_type {body.quantization_type}: weights of fewer than 16 bits") from None
    if body.changed_flags:
        flag = body.changed_flags[0]
        raise invalid(f"{flag}: has no meaning for {precision}, which rounds nothing to integers", param=flag)
    services(request).host.next_precision = precision
    return PrecisionConfigReply(quantization_config=body)


@router.get("/v1/quantization/stats", response_model=PrecisionStatsReply)
async def read_precision(
    request: Request, model_name: str | None = None, include_overall: bool = True
) -> PrecisionStatsReply:
    """Precision and size of the loaded model's weights."""
    host = services(request).host
    stats = None
    if model_name is not None or host.is_ready:
        model = host.served(model_name)
        size = round(model.llm.weight_bytes / _MIB, 2)
        stats = PrecisionStats(model_name=model.model_id, quantization_type=model.llm.dtype, quantized_size=size)
    overall = {
        "total_models": int(stats is not None),
        "memory_saved": None,
        "accuracy_loss": None,
        "avg_quantization_time": None,
        "quantization_times": [],
    }
    return PrecisionStatsReply(
        model_stats=stats,
        overall_stats=overall if include_overall else None,
        cache_stats={"total_models": 0, "cache_size": 0.0, "models": []},
    )


@router.post("/v1/quantization/cache", response_model=ErrorBody, dependencies=[Depends(require_admin)])
async def use_quantized_cache(body: CacheRequest, request: Request) -> ErrorBody:
    """Refused: this version stores no quantised models."""
    services(request).host.served(body.model_name)
    raise _not_built(f"action {body.action}: a store of quantised models")


def _not_built(what: str) -> ApiError:
    return ApiError(501, f"{what} is not part of this version", code="not_implemented")
