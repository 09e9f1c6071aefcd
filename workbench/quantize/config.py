"""What to quantise to and how. Refuses settings that a type cannot honour; touches no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from workbench.errors import ConfigError
from workbench.quantize.quantization_type import ExtensionType, QuantizationType

__all__ = ["INT4_GROUP_SIZES", "QuantizationConfig"]

# What torch's packed int4 kernel takes.
INT4_GROUP_SIZES = (32, 64, 128, 256)

_TYPE = QuantizationType


class _TypeOrName:
    """The field that takes a type or its name and always gives the type."""

    def __get__(self, config: object | None, owner: type) -> QuantizationType | ExtensionType:
        # dataclass reads the field's default from the class.
        kind: QuantizationType | ExtensionType = QuantizationType.INT8
        return kind if config is None else config.__dict__.get("quantization_type", kind)

    def __set__(self, config: object, value: QuantizationType | ExtensionType | str) -> None:
        config.__dict__["quantization_type"] = QuantizationType.parse(value)


@dataclass(frozen=True)
class QuantizationConfig:
    """Settings of one quantisation. A flag left at None takes the type's own value; afterwards none is None but
    `group_size`, which only int4 has.

    Args:
        quantization_type: a QuantizationType or its name.
        dynamic: round activations to 8 bits too, each row by its own range at run time. int8 and fp8 do unless told
            otherwise; False keeps activations as they are.
        per_channel: one scale for each output row (int8, fp8) or within it (int4, nf4), not one for the whole matrix.
        symmetric: scales only, no zero point. int4 has zero points in its weights unless told otherwise; static has
            them in its activations when this is False.
        reduce_range: 7 of 8 bits for int8 weights, so that no CPU overflows when it adds int8 products pairwise.
        memory_efficient: quantise the embedding table, and the output layer that shares it, as well.
        preserve_accuracy: measure each layer's output error and keep the worst, up to 5 % of the weights, in higher
            precision: int8 for int4 and nf4, unrounded activations for static, else the model's own. int4 then also
            searches each group's best range.
        group_size: numbers that share a scale in int4: 32, 64, 128 or 256.

    Raises ConfigError for a flag of the wrong kind and for one that the type cannot honour.
    """

    quantization_type: _TypeOrName = _TypeOrName()
    dynamic: bool | None = None
    per_channel: bool | None = None
    symmetric: bool | None = None
    reduce_range: bool | None = None
    memory_efficient: bool | None = None
    preserve_accuracy: bool | None = None
    group_size: int | None = None

    def __post_init__(self) -> None:
        kind = self.quantization_type
        for name in _FLAGS:
            value = getattr(self, name)
            if value is not None and type(value) is not bool:
                raise ConfigError(f"{name}={value!r}: must be True, False or None")
        for name, (needed, reason) in _FIXED.get(kind, _CAST_FIXED if kind.is_cast else {}).items():
            if getattr(self, name) not in (None, needed):
                raise ConfigError(f"{name}={getattr(self, name)} does not go with {kind.value}: {reason}")
        self._check_group_size(kind)
        for name, value in _defaults(kind, self.dynamic).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    def _check_group_size(self, kind: QuantizationType | ExtensionType) -> None:
        if self.group_size is None:
            return
        if kind is not _TYPE.INT4:
            raise ConfigError(f"group_size={self.group_size} does not go with {kind.value}: only int4 has groups")
        if self.group_size not in INT4_GROUP_SIZES:
            allowed = ", ".join(map(str, INT4_GROUP_SIZES))
            raise ConfigError(f"group_size={self.group_size!r}: must be one of {allowed}")


_FLAGS = tuple(
    field.name for field in fields(QuantizationConfig) if field.name not in ("quantization_type", "group_size")
)

_ZERO_POINT = "its kernels take a scale and no zero point"

# Flags that a type can have in one way only, and why.
_FIXED: Mapping[QuantizationType | ExtensionType, Mapping[str, tuple[bool, str]]] = MappingProxyType(
    {
        _TYPE.INT8: {"symmetric": (True, _ZERO_POINT)},
        _TYPE.DYNAMIC: {
            "symmetric": (True, _ZERO_POINT),
            "dynamic": (True, "rounding activations at run time is what it is"),
        },
        _TYPE.STATIC: {"dynamic": (False, "its ranges are calibrated beforehand")},
        _TYPE.NF4: {
            "dynamic": (False, "no kernel multiplies its levels with int8 activations"),
            "per_channel": (True, "every 64 numbers of a row have a scale of their own"),
            "symmetric": (True, "its levels lie around zero"),
            "reduce_range": (False, "its products are added in floating point and cannot overflow"),
        },
        _TYPE.FP8: {
            "symmetric": (True, "floating point has no zero point"),
            "reduce_range": (False, "its products are added in floating point and cannot overflow"),
        },
        _TYPE.GGUF: {
            name: (value, "the file's weights are used as they are")
            for name, value in {
                "dynamic": False,
                "per_channel": True,
                "symmetric": False,
                "reduce_range": False,
                "memory_efficient": True,
                "preserve_accuracy": False,
            }.items()
        },
        _TYPE.INT4: {
            "dynamic": (False, "no kernel multiplies int4 weights with int8 activations"),
            "per_channel": (True, "every row has scales of its own, one a group"),
            "reduce_range": (False, "its products are added in floating point and cannot overflow"),
        },
    }
)
_CAST_FIXED = MappingProxyType(
    {
        "dynamic": (False, "a cast rounds no activations"),
        "per_channel": (False, "a cast has no scales"),
        "symmetric": (False, "a cast has no scales"),
        "reduce_range": (False, "a cast has no integers"),
        "memory_efficient": (True, "a cast takes every weight"),
        "preserve_accuracy": (False, "a cast leaves no layer out"),
    }
)


def _defaults(kind: QuantizationType | ExtensionType, dynamic: bool | None) -> dict[str, object]:
    if kind.is_cast:
        return {name: value for name, (value, _) in _CAST_FIXED.items()}
    fixed = {name: value for name, (value, _) in _FIXED.get(kind, {}).items()}
    rounds_activations = dynamic is not False and kind in (_TYPE.DYNAMIC, _TYPE.INT8, _TYPE.FP8)
    return {
        "dynamic": rounds_activations,
        "per_channel": True,
        "symmetric": kind is not _TYPE.INT4,
        "reduce_range": rounds_activations or kind is _TYPE.STATIC,
        "memory_efficient": True,
        "preserve_accuracy": True,
        "group_size": INT4_GROUP_SIZES[0] if kind is _TYPE.INT4 else None,
        **fixed,
    }
