"""A plain change of precision: every floating point weight becomes float16 or bfloat16."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from workbench.backends import torch_dtype
from workbench.errors import ConfigError
from workbench.quantize.config import QuantizationConfig
from workbench.quantize.methods.base import Method
from workbench.quantize.weight_use import WeightUse

__all__ = ["Cast"]


class Cast(Method):
    """`dtype` is "fp16" or "bf16"."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def unavailable_reason(self, device_type: str) -> str | None:
        return None

    def pack(self, weight: torch.Tensor, config: QuantizationConfig, use: WeightUse) -> None:
        """Nothing is packed: `apply` changes every weight, and a loader reads them in `dtype` at once."""

    def apply(self, model: nn.Module, config: QuantizationConfig, samples: Sequence[torch.Tensor]) -> tuple[str, ...]:
        """Cast parameters; buffers stay, since tables such as rotary frequencies need their range.

        Raises ConfigError, before anything is changed, when a weight is too large for float16.
        """
        wanted = torch_dtype(self.dtype)
        largest = torch.finfo(wanted).max
        for name, parameter in model.named_parameters():
            if parameter.is_floating_point() and parameter.numel() and parameter.abs().max() > largest:
                raise ConfigError(f"{name} holds numbers beyond {largest:g}, which {self.dtype} cannot: use bf16")
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(wanted)
        if hasattr(model, "config"):
            model.config.dtype = wanted
        return ()
