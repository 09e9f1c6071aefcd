"""The kinds of quantisation and their spellings. Knows which exist in words, not which this build can do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from workbench.errors import ConfigError
from workbench.plugins import default_plugins

__all__ = ["ExtensionType", "QuantizationType"]


@dataclass(frozen=True)
class ExtensionType:
    """A kind that a plugin brings, under the name that it registered."""

    value: str
    is_cast: bool = False


class QuantizationType(Enum):
    """How weights are kept, and for DYNAMIC and STATIC how activations are rounded too.

    INT8 has one scale a row, INT4 a scale and a zero point for each group of a row; FP16 and BF16 are plain casts.
    """

    INT8 = "int8"
    INT4 = "int4"
    FP16 = "fp16"
    BF16 = "bf16"
    DYNAMIC = "dynamic"
    STATIC = "static"
    NF4 = "nf4"
    FP8 = "fp8"
    GGUF = "gguf"

    @classmethod
    def parse(cls, value: str | QuantizationType | ExtensionType) -> QuantizationType | ExtensionType:
        """The type of any accepted spelling, or of a plugin's name. Raises ConfigError listing all of them."""
        if isinstance(value, cls | ExtensionType):
            return value
        spelling = str(value).strip().lower()
        name = _ALIASES.get(spelling, spelling)
        if isinstance(value, str) and name in {kind.value for kind in cls}:
            return cls(name)
        plugins = default_plugins()
        if isinstance(value, str) and plugins.lookup("quantization_methods", spelling) is not None:
            return ExtensionType(spelling)
        brought = [found.name for found in plugins.at("quantization_methods").values()]
        allowed = ", ".join(dict.fromkeys([*(kind.value for kind in cls), *_ALIASES, *brought]))
        raise ConfigError(f"quantization_type={value!r} is not known; use one of: {allowed}")

    @property
    def is_cast(self) -> bool:
        """Whether it is a plain change of precision, with no scales."""
        return self in (QuantizationType.FP16, QuantizationType.BF16)


_ALIASES = {"float16": "fp16", "half": "fp16", "bfloat16": "bf16", "gguf-native": "gguf"}
