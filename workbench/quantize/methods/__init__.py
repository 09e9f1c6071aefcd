"""One method a file, and which one a config asks for. Importing loads torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from workbench.errors import ConfigError, ModelFormatError
from workbench.plugins import default_plugins, hookimpl
from workbench.quantize.config import QuantizationConfig
from workbench.quantize.methods.base import Method
from workbench.quantize.methods.cast import Cast
from workbench.quantize.methods.dynamic import DynamicInt8, DynamicInt8Weight
from workbench.quantize.methods.fp8 import Fp8, Fp8Weight
from workbench.quantize.methods.int4 import Int4, Int4Weight
from workbench.quantize.methods.int8 import Int8, Int8Weight
from workbench.quantize.methods.nf4 import Nf4, Nf4Weight
from workbench.quantize.methods.static import StaticInt8, StaticInt8Weight
from workbench.quantize.packed_weight import PackedWeight
from workbench.quantize.quantization_type import ExtensionType, QuantizationType

__all__ = ["METHODS", "Method", "choose_method", "unavailable_reason", "weight_from_file"]

METHODS: Mapping[QuantizationType | ExtensionType, Method] = MappingProxyType(
    {
        QuantizationType.INT8: Int8(),
        QuantizationType.INT4: Int4(),
        QuantizationType.DYNAMIC: DynamicInt8(),
        QuantizationType.STATIC: StaticInt8(),
        QuantizationType.NF4: Nf4(),
        QuantizationType.FP8: Fp8(),
        QuantizationType.FP16: Cast("fp16"),
        QuantizationType.BF16: Cast("bf16"),
    }
)
_WEIGHTS: Mapping[str, type[PackedWeight]] = MappingProxyType(
    {
        weight.kind: weight
        for weight in (Int8Weight, DynamicInt8Weight, StaticInt8Weight, Int4Weight, Nf4Weight, Fp8Weight)
    }
)
_FROM_A_FILE = "it is the weights of a .gguf file as they are: load the file itself with quant_type='gguf'"


def unavailable_reason(kind: QuantizationType | ExtensionType, device_type: str) -> str | None:
    """Why a model cannot be turned into `kind` on `device_type` ("cpu", "cuda"), in words; None when it can."""
    method = METHODS.get(kind)
    return _FROM_A_FILE if method is None else method.unavailable_reason(device_type)


class _BuiltIn:
    @hookimpl
    def register_quantization_methods(self, register: Callable[..., None]) -> None:
        for kind, method in METHODS.items():
            register(kind.value, method)


_BUILT_IN = _BuiltIn()


def _registered() -> dict[str, Method]:
    """Our own methods and those of plugins, by name."""
    found = default_plugins().at("quantization_methods", _BUILT_IN)
    return {name: _as_method(each.value) for name, each in found.items()}


def _as_method(value: Any) -> Method:
    """What was registered, or what it makes: a class or a function."""
    method: Method = value if hasattr(value, "apply") and not isinstance(value, type) else value()
    return method


def choose_method(config: QuantizationConfig, device_type: str) -> Method:
    """The method of `config` for a model on `device_type` ("cpu", "cuda").

    Raises ConfigError with the reason, and what works there, for a type without one.
    """
    kind = config.quantization_type
    if kind is QuantizationType.INT8 and config.dynamic:
        kind = QuantizationType.DYNAMIC
    method = _registered().get(kind.value)
    reason = _FROM_A_FILE if method is None else method.unavailable_reason(device_type)
    if method is not None and reason is None:
        return method
    working = [name for name, other in _registered().items() if other.unavailable_reason(device_type) is None]
    raise ConfigError(
        f"quantization_type={config.quantization_type.value!r} is not available on {device_type}: {reason}; "
        f"what works there: {', '.join(working)}"
    )


def weight_from_file(
    kind: str,
    tensors: Mapping[str, torch.Tensor],
    facts: Mapping[str, int | bool],
    device: str,
    more_kinds: Mapping[str, type[PackedWeight]] = MappingProxyType({}),
) -> PackedWeight:
    """The packed weight that a file describes, of the kinds known here and `more_kinds`. Raises ModelFormatError for
    one of another kind."""
    known = {**_WEIGHTS, **more_kinds}
    if kind not in known:
        raise ModelFormatError(f"weights of the kind {kind!r} are not known here; known are {', '.join(known)}")
    return known[kind].from_file(tensors, facts, device)
