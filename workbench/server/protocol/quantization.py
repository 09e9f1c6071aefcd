"""The weights' precision on the wire, in the documented field names."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from workbench.server.protocol.wire import WireReply, WireRequest

__all__ = [
    "CacheReply",
    "CacheRequest",
    "PrecisionConfig",
    "PrecisionConfigReply",
    "PrecisionStats",
    "PrecisionStatsReply",
]


class PrecisionConfig(WireRequest):
    """How weights are kept, from the next load on. A flag that is left out takes the type's own value."""

    model_config = {"json_schema_extra": {"examples": [{"quantization_type": "int8"}]}}

    quantization_type: str = Field("int8", min_length=1, max_length=32)
    dynamic: bool | None = None
    per_channel: bool | None = None
    symmetric: bool | None = None
    reduce_range: bool | None = None
    memory_efficient: bool | None = None
    preserve_accuracy: bool | None = None

    @property
    def flags(self) -> dict[str, bool]:
        """The flags that are given."""
        return self.model_dump(exclude_none=True, exclude={"quantization_type"})


class PrecisionConfigReply(WireReply):
    """The setting is taken; every flag is as it will be."""

    status: Literal["config_updated"] = "config_updated"
    quantization_config: dict[str, Any]
    applies: Literal["on the next load"] = "on the next load"


class CacheRequest(WireRequest):
    """Something to do with a stored quantised model."""

    model_config = {"json_schema_extra": {"examples": [{"model_name": "default", "action": "clear"}]}}

    model_name: str = Field(min_length=1, max_length=512)
    quantization_type: str = Field("int8", min_length=1, max_length=32)
    action: Literal["cache", "load", "clear"] = "cache"


class CacheReply(WireReply):
    """What was done; `freed_bytes` belongs to "cache_cleared"."""

    status: Literal["cached", "loaded", "cache_cleared"]
    model_name: str
    freed_bytes: int | None = None


class PrecisionStats(WireReply):
    """The loaded model's weights; sizes in MB of 2**20 bytes. What was not measured is null."""

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
