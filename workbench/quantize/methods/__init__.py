"""One method a file, and which one a config asks for. Importing loads torch."""

from __future__ import annotations

from types import MappingProxyType

from workbench.errors import ConfigError
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


def choose_method(config: QuantizationConfig, device_type: str) -> Method:
    """The method of `config` for a model on `device_type` ("cpu", "cuda").

    Raises ConfigError with the reason, and what works there, for a type without one.
    """
    kind = config.quantization_type
    if kind is QuantizationType.INT8 and config.dynamic:
        kind = QuantizationType.DYNAMIC
    method = METHODS.get(kind)
    reason = "it has no method here yet" if method is None else method.unavailable_reason(device_type)
    if reason is None:
        return method
    working = [name.value for name, other in METHODS.items() if other.unavailable_reason(device_type) is None]
    raise ConfigError(
        f"quantization_type={config.quantization_type.value!r} is not available on {device_type}: {reason}; "
        f"what works there: {', '.join(working)}"
    )
