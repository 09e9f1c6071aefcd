"""Smaller weights: types, settings, a manager that applies them and counts what they save. Importing loads no torch."""

from workbench.quantize.config import QuantizationConfig
from workbench.quantize.manager import QuantizationManager
from workbench.quantize.quant_type import QuantType, parse_quant_type
from workbench.quantize.quantization_type import QuantizationType
from workbench.quantize.weight_bytes import bytes_per_weight, stored_type, weight_bytes

__all__ = [
    "QuantType",
    "QuantizationConfig",
    "QuantizationManager",
    "QuantizationType",
    "bytes_per_weight",
    "parse_quant_type",
    "stored_type",
    "weight_bytes",
]
