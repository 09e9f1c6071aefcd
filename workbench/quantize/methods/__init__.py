"""One method a file, and which one a config asks for. Importing loads torch."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

from workbench.errors import ConfigError
from workbench.plugins import default_plugins, hookimpl
from workbench.quantize.config import QuantizationConfig
from workbench.quantize.methods.base import Method
from workbench.quantize.methods.cast import Cast
from workbench.quantize.methods.dynamic import DynamicInt8
from workbench.quantize.methods.int4 import Int4
from workbench.quantize.methods.int8 import Int8
from workbench.quantize.quantization_type import QuantizationType

__all__ = ["METHODS", "Method", "choose_method"]

METHODS = MappingProxyType(
    {
        QuantizationType.INT8: Int8(),
        QuantizationType.INT4: Int4(),
        QuantizationType.DYNAMIC: DynamicInt8(),
        QuantizationType.FP16: Cast("fp16"),
        QuantizationType.BF16: Cast("bf16"),
    }
)


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


def _as_method(value: Method | Callable[[], Method]) -> Method:
    return value if hasattr(value, "apply") and not isinstance(value, type) else value()


def choose_method(config: QuantizationConfig, device_type: str) -> Method:
    """The method of `config` for a model on `device_type` ("cpu", "cuda").

    Raises ConfigError with the reason, and what works there, for a type without one.
    """
    kind = config.quantization_type
    if kind is QuantizationType.INT8 and config.dynamic:
        kind = QuantizationType.DYNAMIC
    method = _registered().get(kind.value)
    reason = "it has no method here yet" if method is None else method.unavailable_reason(device_type)
    if reason is None:
        return method
    working = [name for name, other in _registered().items() if other.unavailable_reason(device_type) is None]
    raise ConfigError(
        f"quantization_type={config.quantization_type.value!r} is not available on {device_type}: {reason}; "
        f"what works there: {', '.join(working)}"
    )
