"""The documented import path of quantisation."""

from workbench.quantize import QuantizationConfig, QuantizationManager, QuantizationType

__all__ = ["QuantizationConfig", "QuantizationManager", "QuantizationType"]
