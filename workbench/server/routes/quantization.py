"""POST /v1/quantization/config and /v1/quantization/cache, GET /v1/quantization/stats."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import partial

from fastapi import APIRouter, Depends, Request

from workbench.errors import BackendUnavailableError, CacheError, ConfigError
from workbench.models.quantized_folder import quantize_to_folder
from workbench.quantize import QuantizationCache, QuantizationConfig, QuantType, parse_quant_type
from workbench.quantize.quant_type import QUANTIZED_NAMES
from workbench.server.auth import require_admin
from workbench.server.errors import ApiError, invalid
from workbench.server.json_body import JsonRoute
from workbench.server.protocol.quantization import (
    CacheReply,
    CacheRequest,
    PrecisionConfig,
    PrecisionConfigReply,
    PrecisionStats,
    PrecisionStatsReply,
)
from workbench.server.served_model import ServedModel
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
    times = [stats.quantization_time] if stats is not None and stats.quantization_time is not None else []
    overall = {
        "total_models": int(stats is not None),
        "memory_saved": stats.memory_saved if stats is not None else None,
        "accuracy_loss": None,
        "avg_quantization_time": times[0] if times else None,
        "quantization_times": times,
    }
    return PrecisionStatsReply(
        model_stats=stats,
        overall_stats=overall if include_overall else None,
        cache_stats=await asyncio.to_thread(QuantizationCache().stats),
    )


@router.post("/v1/quantization/cache", response_model=CacheReply, dependencies=[Depends(require_admin)])
async def use_quantized_cache(body: CacheRequest, request: Request) -> CacheReply:
    """Quantise the loaded model and keep the result, load it so, or give the disk space back."""
    host = services(request).host
    served = host.served(body.model_name)
    quant = _cacheable(body.quantization_type)
    cache, name = QuantizationCache(), served.llm.model_name
    try:
        if body.action == "clear":
            freed_bytes = await asyncio.to_thread(cache.remove, name, quant.name)
            return CacheReply(status="cache_cleared", model_name=body.model_name, freed_bytes=freed_bytes)
        if body.action == "cache":
            keep = partial(quantize_to_folder, dtype=served.llm.dtype, cache=cache)
            await asyncio.to_thread(keep, served.llm.model_path, quant.config)
            return CacheReply(status="cached", model_name=body.model_name)
    except ConfigError as error:
        raise invalid(str(error), param="model_name") from error
    except CacheError as error:
        raise ApiError(507, str(error), code="cache_unavailable") from error
    if not any(entry.name == name and entry.quantization_type == quant.name for entry in cache.entries()):
        raise ApiError(
            404, f"no {quant.name} weights of {body.model_name} are kept", param="model_name", code="not_found"
        )
    host.next_precision = quant.name
    await host.load(str(served.llm.model_path), lambda: None, lambda progress: None)
    return CacheReply(status="loaded", model_name=body.model_name)


def _cacheable(name: str) -> QuantType:
    """The quantisation of that name. Raises a 400 for one whose weights are not kept."""
    try:
        quant = parse_quant_type(name)
    except ConfigError as error:
        raise invalid(str(error), param=_PARAM) from error
    if quant.config is None or quant.name == "gguf":
        kept = ", ".join(one for one in QUANTIZED_NAMES if one != "gguf")
        raise invalid(f"{_PARAM}: {name} is never kept; kept are {kept}", param=_PARAM)
    return quant


def _checked_flags(asked: QuantType, body: PrecisionConfig) -> dict[str, object]:
    """All flags as a load will have them. Raises a 400 for one that is asked for and would be otherwise."""
    if asked.config is not None:
        config = asdict(asked.config)
    elif asked.dtype is None or asked.dtype == "fp32":
        config = dict.fromkeys(("dynamic", "per_channel", "symmetric", "reduce_range", "preserve_accuracy"), False)
        config["memory_efficient"] = False
    else:
        config = asdict(QuantizationConfig(asked.dtype))
    for name, value in body.flags.items():
        if config[name] != value:
            raise invalid(f"{name}: a load with {asked.name} always has it {config[name]}", param=name)
    return {**config, _PARAM: asked.name}


def _stats(model: ServedModel) -> PrecisionStats:
    llm = model.llm
    stats = PrecisionStats(
        model_name=model.model_id,
        quantization_type=llm.precision,
        quantized_size=round(llm.weight_bytes / _MIB, 2),
    )
    done = llm.quantized
    if done is not None and done.original_bytes is not None:
        stats.original_size = round(done.original_bytes / _MIB, 2)
        stats.memory_saved = round((done.original_bytes - llm.weight_bytes) / _MIB, 2)
    if done is not None and not done.from_cache:
        stats.quantization_time = round(done.elapsed_s, 3)
    return stats
