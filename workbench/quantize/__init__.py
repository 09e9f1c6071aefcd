"""Smaller weights: types, settings, a manager that applies them and counts what they save. Importing loads no torch."""

from workbench.quantize.config import QuantizationConfig
from workbench.quantize.manager import QuantizationManager
from workbench.quantize.quant_type import QuantType, parse_quant_type
from workbench.quantize.quantization_type import QuantizationType

__all__ = ["QuantType", "QuantizationConfig", "QuantizationManager", "QuantizationType", "parse_quant_type"]
