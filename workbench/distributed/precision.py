"""In which precisions ranks hold their shares of a model."""

from __future__ import annotations

from workbench.errors import ConfigError
from workbench.quantize import QuantizationConfig

__all__ = ["check_precision"]


def check_precision(quantization: QuantizationConfig | None) -> None:
    """Raises ConfigError for quantised weights, of which no rank can read its share by itself."""
    if quantization is not None:
        name = quantization.quantization_type.value
        raise ConfigError(
            f"quant_type={name!r}: where a model is split, it must be fp32, bf16 or fp16; whole copies "
            "(strategy='data', in processes) take it"
        )
