"""Several devices on the wire, in the documented field names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from workbench.server.protocol.wire import WireReply, WireRequest, WrongField

__all__ = ["DeviceMetrics", "MultiDeviceConfig", "MultiDeviceStats", "MultiDeviceStatsReply"]

_STRATEGIES = {
    "tensor_parallel": "tensor",
    "pipeline_parallel": "pipeline",
    "data_parallel": "data",
}
DeviceId = Annotated[int, Field(ge=0, le=1023)]
Size = Annotated[int, Field(ge=1, le=1024)]


class MultiDeviceConfig(WireRequest):
    """How a model should be spread over devices."""

    model_config = {"json_schema_extra": {"examples": [{"gpu_ids": [0, 1], "strategy": "tensor"}]}}

    gpu_ids: list[DeviceId] | None = Field(None, min_length=1, max_length=1024)
    num_gpus: Size | None = Field(None, description="Instead of `gpu_ids`: the first so many.")
    strategy: Literal["tensor", "pipeline", "data", "hybrid"] = "tensor"
    tensor_parallel_size: Size | None = None
    pipeline_parallel_size: Size | None = None
    data_parallel_size: Size | None = None
    stages: Size | None = Field(None, description="Another name for `pipeline_parallel_size`.")
    load_balancing: Literal["round_robin", "least_loaded", "adaptive"] = "round_robin"
    load_balancer: Literal["round_robin", "least_loaded", "adaptive"] | None = Field(
        None, description="Another name for `load_balancing`."
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_long_names(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("strategy"), str):
            return {**values, "strategy": _STRATEGIES.get(values["strategy"], values["strategy"])}
        return values

    @model_validator(mode="after")
    def _check_together(self) -> MultiDeviceConfig:
        if (self.gpu_ids is None) == (self.num_gpus is None):
            raise WrongField("gpu_ids", "or num_gpus must be given, and not both")
        if self.gpu_ids is not None and len(set(self.gpu_ids)) != len(self.gpu_ids):
            raise WrongField("gpu_ids", "names a device twice")
        sizes = [self.tensor_parallel_size, self.pipeline_parallel_size or self.stages, self.data_parallel_size]
        needed = 1
        for size in sizes:
            needed *= size or 1
        if needed > len(self.ids):
            raise WrongField("tensor_parallel_size", f"and the other sizes need {needed} devices, not {len(self.ids)}")
        return self

    @property
    def ids(self) -> list[int]:
        """The devices that are asked for."""
        return self.gpu_ids if self.gpu_ids is not None else list(range(self.num_gpus))


class DeviceMetrics(WireReply):
    """By device id: the share of its batch, and of its memory, that is in use, from 0 to 1."""

    loads: dict[str, float]
    memory: dict[str, float]


class MultiDeviceStats(WireReply):
    """What runs where. `gpu_config` and `load_balancing` are null while one device does it all."""

    gpu_config: None = None
    load_balancing: None = None
    gpu_metrics: DeviceMetrics
    reason: str


class MultiDeviceStatsReply(WireReply):
    """The figures, in the documented envelope."""

    status: Literal["success"] = "success"
    multi_gpu_stats: MultiDeviceStats
