"""Smaller weights: types, settings, a manager that applies them and counts what they save. Importing loads no torch."""

from workbench.quantize.cache import QuantizationCache
from workbench.quantize.config import QuantizationConfig
from workbench.quantize.inference import QuantizedInference
from workbench.quantize.manager import QuantizationManager
from workbench.quantize.probe import Capability, CapabilityState, probe_capabilities
from workbench.quantize.quant_type import QuantType, parse_quant_type
from workbench.quantize.quantization_type import QuantizationType
from workbench.quantize.weight_bytes import bytes_per_weight, stored_type, weight_bytes

__all__ = [
    "Capability",
    "CapabilityState",
    "QuantType",
    "QuantizationCache",
    "QuantizationConfig",
    "QuantizationManager",
    "QuantizationType",
    "QuantizedInference",
    "bytes_per_weight",
    "parse_quant_type",
    "probe_capabilities",
    "stored_type",
    "weight_bytes",
]
