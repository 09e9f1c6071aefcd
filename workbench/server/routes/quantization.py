"""POST /v1/quantization/config and /v1/quantization/cache, GET /v1/quantization/stats."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Depends, Request

from workbench.errors import BackendUnavailableError, ConfigError
from workbench.quantize import QuantizationConfig, QuantType, parse_quant_type
from workbench.server.auth import require_admin
from workbench.server.errors import invalid
from workbench.server.json_body import JsonRoute
from workbench.server.model_host import ServedModel
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
_PARAM = "quantization_type"


@router.post("/v1/quantization/config", response_model=PrecisionConfigReply, dependencies=[Depends(require_admin)])
async def set_precision(body: PrecisionConfig, request: Request) -> PrecisionConfigReply:
    """Choose how /v1/models/load keeps weights from now on."""
    host = services(request).host
    try:
        asked = parse_quant_type(body.quantization_type)
        if host.device is not None:
            asked.require_on(host.device[0])
    except (ConfigError, BackendUnavailableError) as error:
        raise invalid(str(error), param=_PARAM) from error
    applied = _checked_flags(asked, body)
    host.next_precision = asked.name
    return PrecisionConfigReply(quantization_config=applied)


@router.get("/v1/quantization/stats", response_model=PrecisionStatsReply)
async def read_precision(
    request: Request, model_name: str | None = None, include_overall: bool = True
) -> PrecisionStatsReply:
    """How the loaded model's weights are kept, and their size."""
    host = services(request).host
    stats = _stats(host.served(model_name)) if model_name is not None or host.is_ready else None
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
    """Refused: quantised models are not stored, they are made again by each load."""
    services(request).host.served(body.model_name)
    raise invalid(f"action {body.action}: there is no store of quantised models", param="action", code="not_supported")


def _checked_flags(asked: QuantType, body: PrecisionConfig) -> dict[str, object]:
    """All flags as a load will have them. Raises a 400 for one that is asked for and would be otherwise."""
    if asked.config is None and asked.dtype == "fp32":
        config = dict.fromkeys(("dynamic", "per_channel", "symmetric", "reduce_range", "preserve_accuracy"), False)
        config["memory_efficient"] = False
    else:
        config = asdict(asked.config or QuantizationConfig(asked.dtype))
    for name, value in body.flags.items():
        if config[name] != value:
            raise invalid(f"{name}: a load with {asked.name} always has it {config[name]}", param=name)
    return {**config, _PARAM: asked.name}


def _stats(model: ServedModel) -> PrecisionStats:
    llm = model.llm
    kind = llm.quantization.quantization_type.value if llm.quantization else llm.dtype
    return PrecisionStats(
        model_name=model.model_id, quantization_type=kind, quantized_size=round(llm.weight_bytes / _MIB, 2)
    )
