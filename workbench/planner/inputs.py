"""What `plan` was asked, checked and with every "choose for me" settled, but for the context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from workbench.engine import EngineConfig
from workbench.errors import BackendUnavailableError, ConfigError
from workbench.parallel import ParallelShape
from workbench.planner.calibration import model_class_of
from workbench.planner.model_shape import ModelShape
from workbench.planner.roofline import device_key
from workbench.planner.target import Target
from workbench.quantize import QuantType, parse_quant_type

__all__ = [
    "KV_DTYPES",
    "PlanInputs",
    "available_kv_dtypes",
    "checked_count",
    "resolve_kv_dtype",
    "resolve_quant",
]

KV_DTYPES = ("fp32", "bf16", "fp16", "fp8")


@dataclass(frozen=True)
class PlanInputs:
    """`context` is None for "as much as fits"; `reclaim_bytes` are given back on each device before the load starts;
    the last `host_layers` stay in the host's memory; `draft` is the shape of a draft model, and how its weights are
    kept."""

    shape: ModelShape
    targets: tuple[Target, ...]
    host: Target
    sizes: ParallelShape
    quant: QuantType
    dtype: str
    kv_dtype: str
    context: int | None
    batch: int
    prompt_tokens: int
    memory_fraction: float
    reclaim_bytes: int
    arguments: Mapping[str, Any]
    overhead_offset: int = 0
    host_layers: int = 0
    draft: tuple[ModelShape, QuantType] | None = None

    @property
    def device_key(self) -> str:
        """Names the kind of device, for what is learnt of it."""
        return device_key(self.target)

    @property
    def model_class(self) -> str:
        """Names models that are alike enough to learn from each other."""
        shape = self.shape
        return model_class_of(shape.spec.model_type, shape.num_parameters, self.quant.name, self.dtype)

    @property
    def target(self) -> Target:
        """The first device; all are of one kind."""
        return self.targets[0]

    def changed(self, change: Mapping[str, Any], **settled: Any) -> PlanInputs:
        """The same with other arguments; `settled` are the fields that they settle to."""
        return replace(self, arguments=MappingProxyType({**self.arguments, **change}), **settled)


def checked_count(name: str, value: object) -> int:
    """`value` if it is an integer of at least 1; else ConfigError names the field."""
    if type(value) is not int or value < 1:
        raise ConfigError(f"{name}={value!r}: must be an integer of at least 1")
    return value


def resolve_quant(name: str | None, target: Target) -> tuple[QuantType, str]:
    """What the weights are kept in and the precision they are computed in, on that device.

    Raises ConfigError listing the names, BackendUnavailableError for one that cannot be had there.
    """
    quant = parse_quant_type(target.default_dtype if name is None else name)
    quant.require_on(target.backend_name)
    dtype = quant.dtype or target.default_dtype
    if dtype not in target.dtypes:
        raise BackendUnavailableError(
            f"quant={name!r} is not available: {target.name} computes in {', '.join(target.dtypes)}"
        )
    return quant, dtype


def available_kv_dtypes(dtype: str, backend_name: str) -> tuple[str, ...]:
    """What keys and values can be kept in beside weights computed in `dtype`."""
    has_knob = any(field.name == "kv_dtype" for field in fields(EngineConfig))
    return (dtype, "fp8") if has_knob and backend_name != "cpu" and dtype != "fp8" else (dtype,)


def resolve_kv_dtype(name: str | None, dtype: str, backend_name: str) -> str:
    """The precision of the cache. Raises ConfigError listing what can be had."""
    if name in (None, "auto"):
        return dtype
    allowed = available_kv_dtypes(dtype, backend_name)
    if name not in KV_DTYPES:
        raise ConfigError(f"kv_dtype={name!r} is not known; use one of: auto, {', '.join(allowed)}")
    if name not in allowed:
        raise ConfigError(
            f"kv_dtype={name!r} is not available: with weights computed in {dtype} on {backend_name} the engine keeps "
            f"keys and values in {' or '.join(allowed)}"
        )
    return name
