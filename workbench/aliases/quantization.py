"""The documented import path of quantisation."""

from workbench.quantize import (
    QuantizationCache,
    QuantizationConfig,
    QuantizationManager,
    QuantizationType,
    QuantizedInference,
)

__all__ = [
    "QuantizationCache",
    "QuantizationConfig",
    "QuantizationManager",
    "QuantizationType",
    "QuantizedInference",
]
