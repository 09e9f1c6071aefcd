"""The one word that says how a model's weights are loaded: a precision ("bf16") or a quantisation ("int8")."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from workbench.backends import DTYPE_NAMES, parse_dtype
from workbench.errors import BackendUnavailableError, ConfigError
from workbench.plugins import default_plugins
from workbench.quantize.config import QuantizationConfig

__all__ = ["QUANTIZED_NAMES", "QuantType", "parse_quant_type"]

# Layers of int8 differ too little for it to be worth a second look at each while loading.
_CONFIGS = MappingProxyType(
    {
        "int8": {"quantization_type": "int8", "dynamic": False, "preserve_accuracy": False},
        "int4": {"quantization_type": "int4"},
        "dynamic": {"quantization_type": "dynamic", "preserve_accuracy": False},
        "gguf": {"quantization_type": "gguf", "preserve_accuracy": False},
        "fp8": {"quantization_type": "fp8"},
    }
)
QUANTIZED_NAMES = tuple(_CONFIGS)
_NOT_YET = ("static", "nf4")
# Packed by the engine for its own kernels on a GPU; on the CPU torch's packed kernels or the native ones take these.
_ON_GPU = ("int8", "int4", "fp8")
_ON_CPU = ("int8", "int4", "dynamic", "gguf")


@dataclass(frozen=True)
class QuantType:
    """`dtype` is the precision to load and compute in (None: the device's own); `config` what is done to the weights
    afterwards (None: nothing)."""

    name: str
    dtype: str | None
    config: QuantizationConfig | None = None

    def require_on(self, backend_name: str) -> None:
        """Raise BackendUnavailableError, with the reason, if this quantisation has no method on that backend."""
        # A plugin's method speaks for itself when it is chosen.
        if self.config is None or self.name not in _CONFIGS:
            return
        works = _ON_CPU if backend_name == "cpu" else _ON_GPU
        if self.name not in works:
            raise BackendUnavailableError(
                f"quant_type={self.name!r} is not available on {backend_name}: it has no kernels there; "
                f"use one of {', '.join([*DTYPE_NAMES, *works])}"
            )


def parse_quant_type(name: str) -> QuantType:
    """What `name` asks for. Raises ConfigError listing the valid names."""
    spelling = str(name).strip().lower()
    spelling = "gguf" if spelling == "gguf-native" else spelling
    if spelling in _CONFIGS:
        return QuantType(spelling, None, QuantizationConfig(**_CONFIGS[spelling]))
    allowed = f"use one of: {', '.join([*DTYPE_NAMES, *QUANTIZED_NAMES])}"
    if spelling in _NOT_YET:
        raise ConfigError(f"quant_type={name!r} has no method here yet; {allowed}")
    brought = default_plugins().at("quantization_methods").get(spelling)
    if brought is not None and not brought.is_built_in:
        return QuantType(spelling, None, QuantizationConfig(spelling))
    try:
        dtype = parse_dtype(name)
    except ConfigError as error:
        raise ConfigError(f"quant_type: {error}, {', '.join(QUANTIZED_NAMES)}") from None
    return QuantType(dtype, dtype)
