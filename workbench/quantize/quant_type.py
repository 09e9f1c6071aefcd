"""The one word that says how a model's weights are loaded: a precision ("bf16") or a quantisation ("int8")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from workbench.backends import DTYPE_NAMES, parse_dtype
from workbench.errors import BackendUnavailableError, ConfigError
from workbench.plugins import default_plugins
from workbench.quantize.config import QuantizationConfig
from workbench.quantize.quantization_type import QuantizationType

__all__ = [
    "ENGINE_FAMILIES",
    "ENGINE_GROUP_COLUMNS",
    "ENGINE_PACKED_NAMES",
    "QUANTIZED_NAMES",
    "QuantType",
    "available_names",
    "parse_quant_type",
]

# Layers of 8 bits differ too little for it to be worth a second look at each while loading.
_CONFIGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "int8": {"quantization_type": "int8", "dynamic": False, "preserve_accuracy": False},
        "int4": {"quantization_type": "int4"},
        "dynamic": {"quantization_type": "dynamic", "preserve_accuracy": False},
        "static": {"quantization_type": "static"},
        "nf4": {"quantization_type": "nf4", "preserve_accuracy": False},
        "fp8": {"quantization_type": "fp8", "preserve_accuracy": False},
        "gguf": {"quantization_type": "gguf"},
    }
)
QUANTIZED_NAMES = tuple(_CONFIGS)
# On a GPU the engine packs these for its own kernels, where it knows the architecture.
ENGINE_PACKED_NAMES = ("int8", "int4", "fp8")
ENGINE_FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
# Columns of a row that share a scale in its int4.
ENGINE_GROUP_COLUMNS = 128
_ALIASES = MappingProxyType({"gguf-native": "gguf", "bnb-nf4": "nf4", "bnb-4bit": "nf4", "float8": "fp8"})


@dataclass(frozen=True)
class QuantType:
    """`dtype` is the precision to load and compute in (None: the device's own); `config` what is done to the weights
    afterwards (None: nothing)."""

    name: str
    dtype: str | None
    config: QuantizationConfig | None = None

    def unavailable_reason(self, backend_name: str) -> str | None:
        """Why this quantisation cannot be used on that backend ("cpu", "cuda", "rocm"), in words; None when it can."""
        if self.config is None:
            return None
        kind = self.config.quantization_type
        if kind is QuantizationType.GGUF and backend_name != "cpu":
            return "packed weights of a .gguf file are read by the CPU only"
        if kind is QuantizationType.NF4 and find_spec("bitsandbytes") is None:
            return "bitsandbytes is not installed"
        return None

    def engine_packed_name(self, device_type: str) -> str | None:
        """The name under which the engine packs these weights for its own kernels on a device ("cpu", "cuda"); None
        where torch's kernels run them: on a CPU, and with flags of one's own, which only those honour."""
        if device_type == "cpu" or self.name not in ENGINE_PACKED_NAMES:
            return None
        return self.name if self == parse_quant_type(self.name) else None

    def require_on(self, backend_name: str) -> None:
        """Raise BackendUnavailableError, with the reason, if this quantisation has no method on that backend."""
        reason = self.unavailable_reason(backend_name)
        if reason is not None:
            working = available_names(backend_name)
            raise BackendUnavailableError(
                f"quant_type={self.name!r} is not available on {backend_name}: {reason}; "
                f"use one of {', '.join([*DTYPE_NAMES, *working])}"
            )


def available_names(backend_name: str) -> list[str]:
    """The quantisations that have a method on that backend."""
    return [name for name in QUANTIZED_NAMES if parse_quant_type(name).unavailable_reason(backend_name) is None]


def parse_quant_type(name: str | QuantizationConfig) -> QuantType:
    """What `name` asks for, or what a config says. Raises ConfigError listing the valid names."""
    if isinstance(name, QuantizationConfig):
        kind = name.quantization_type
        return QuantType(kind.value, kind.value) if kind.is_cast else QuantType(kind.value, None, name)
    spelling = str(name).strip().lower()
    spelling = _ALIASES.get(spelling, spelling)
    if spelling in _CONFIGS:
        return QuantType(spelling, None, QuantizationConfig(**_CONFIGS[spelling]))
    try:
        dtype = parse_dtype(name)
    except ConfigError as error:
        brought = default_plugins().lookup("quantization_methods", spelling)
        if brought is not None and not brought.is_built_in:
            return QuantType(spelling, None, QuantizationConfig(spelling))
        raise ConfigError(f"quant_type: {error}, {', '.join(QUANTIZED_NAMES)}") from None
    return QuantType(dtype, dtype)
