"""Precision on the wire, in the documented field names."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from workbench.server.protocol.wire import WireReply, WireRequest

__all__ = [
    "CacheRequest",
    "PrecisionConfig",
    "PrecisionConfigReply",
    "PrecisionStats",
    "PrecisionStatsReply",
]

# What bears no meaning for a floating-point precision.
_INTEGER_ONLY = ("dynamic", "per_channel", "symmetric", "reduce_range", "memory_efficient", "preserve_accuracy")


class PrecisionConfig(WireRequest):
    """The precision of the weights, from the next load on."""

    model_config = {"json_schema_extra": {"examples": [{"quantization_type": "bf16"}]}}

    quantization_type: Literal[
        "int8", "int4", "fp32", "fp16", "bf16", "float32", "float16", "bfloat16", "dynamic", "static"
    ] = "int8"
    dynamic: bool = True
    per_channel: bool = True
    symmetric: bool = True
    reduce_range: bool = True
    memory_efficient: bool = True
    preserve_accuracy: bool = True

    @property
    def changed_flags(self) -> list[str]:
        """Flags that are not as they are by default."""
        return [name for name in _INTEGER_ONLY if not getattr(self, name)]


class PrecisionConfigReply(WireReply):
    """The setting is taken."""

    status: Literal["config_updated"] = "config_updated"
    quantization_config: PrecisionConfig
    applies: Literal["on the next load"] = "on the next load"


class CacheRequest(WireRequest):
    """Something to do with a stored quantised model."""

    model_config = {"json_schema_extra": {"examples": [{"model_name": "default", "action": "clear"}]}}

    model_name: str = Field(min_length=1, max_length=512)
    quantization_type: Literal["int8", "int4", "fp16", "bf16", "dynamic", "static"] = "int8"
    action: Literal["cache", "load", "clear"] = "cache"


class PrecisionStats(WireReply):
    """The loaded model's weights; sizes in MB of 2**20 bytes. What is not measured is null."""

    model_name: str
    quantization_type: str
    quantized_size: float
    original_size: float | None = None
    memory_saved: float | None = None
    quantization_time: float | None = None


class PrecisionStatsReply(WireReply):
    """The figures, in the documented envelope."""

    status: Literal["success"] = "success"
    model_stats: PrecisionStats | None
    overall_stats: dict[str, Any] | None
    cache_stats: dict[str, Any]
