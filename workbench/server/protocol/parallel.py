"""Several devices on the wire, in the documented field names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from workbench.parallel import GPUConfig
from workbench.server.protocol.forms import by_class, first_wrong, forms
from workbench.server.protocol.wire import WireReply, WireRequest

__all__ = ["DeviceMetrics", "MultiDeviceConfig", "MultiDeviceConfigReply", "MultiDeviceStats", "MultiDeviceStatsReply"]

DeviceId = Annotated[
    int | str,
    forms(
        by_class({int: "index", str: "uuid"}),
        "must be an index or a UUID",
        {"index": Annotated[int, Field(ge=0, le=1023)], "uuid": Annotated[str, Field(min_length=1, max_length=64)]},
    ),
]
Size = Annotated[int, Field(ge=1, le=1024)]
Word = Annotated[str, Field(min_length=1, max_length=64)]


class MultiDeviceConfig(WireRequest):
    """How a model should be spread over devices. Names and sizes are those of `GPUConfig`."""

    model_config = {"json_schema_extra": {"examples": [{"gpu_ids": [0, 1], "strategy": "tensor"}]}}

    gpu_ids: Annotated[list[DeviceId], Field(min_length=1, max_length=1024), first_wrong] | None = Field(
        None, description="Indexes as torch numbers them, or UUIDs."
    )
    num_gpus: Size | None = Field(None, description="Instead of `gpu_ids`: the first so many.")
    strategy: Word | None = Field(None, description="tensor (default), pipeline, data or hybrid.")
    tensor_parallel_size: Size | None = None
    pipeline_parallel_size: Size | None = None
    data_parallel_size: Size | None = None
    stages: Size | None = Field(None, description="Another name for `pipeline_parallel_size`.")
    memory_fraction: float | None = Field(None, gt=0, le=1)
    load_balancing: Word | None = Field(None, description="round_robin (default), least_loaded, adaptive, ...")
    load_balancer: Word | None = Field(None, description="Another name for `load_balancing`.")
    on_cpu: bool = Field(False, description="Processes on the CPU instead of GPUs; the ids then only number them.")

    @model_validator(mode="after")
    def _check_config(self) -> MultiDeviceConfig:
        _ = self.config
        return self

    @property
    def config(self) -> GPUConfig:
        """Our own form. Raises ConfigError (a ValueError) for what does not go together."""
        return GPUConfig(**self.model_dump(exclude_none=True, exclude={"on_cpu"}))


class DeviceMetrics(WireReply):
    """By device id: the share of its batch, and of its memory, that is in use, from 0 to 1."""

    loads: dict[str, float]
    memory: dict[str, float]


class MultiDeviceConfigReply(WireReply):
    """The spread that is in use now, and in words how the model runs."""

    status: Literal["success"] = "success"
    gpu_config: dict[str, Any]
    runner: str


class MultiDeviceStats(WireReply):
    """What runs where. `gpu_config` and `load_balancing` are null while one device does it all.

    `replicas` are the groups of processes with their bytes, requests and the idle share of their stages, and how those
    that are not alive `ended`. `reason` says in words how the model runs, or what it died of, `degraded_reason` what is
    less than asked.
    """

    state: Literal["running", "degraded", "dead", "unloaded"]
    gpu_config: dict[str, Any] | None = None
    load_balancing: dict[str, Any] | None = None
    gpu_metrics: DeviceMetrics
    replicas: list[dict[str, Any]] = Field(default_factory=list)
    degraded_reason: str | None = None
    reason: str


class MultiDeviceStatsReply(WireReply):
    """The figures, in the documented envelope."""

    status: Literal["success"] = "success"
    multi_gpu_stats: MultiDeviceStats
