"""What a method is: something that makes a model's weights smaller, whole or one weight at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import nn

from workbench.quantize.config import QuantizationConfig

__all__ = ["Method"]


class Method(ABC):
    """Stateless; one object a method."""

    @abstractmethod
    def unavailable_reason(self, device_type: str) -> str | None:
        """Why it cannot run on that kind of device, in words; None when it can."""

    @abstractmethod
    def apply(self, model: nn.Module, config: QuantizationConfig, samples: Sequence[torch.Tensor]) -> tuple[str, ...]:
        """Quantise `model` in place and name the layers that stayed in higher precision.

        `samples` are token ids [1, tokens] to measure layer errors on; may be empty. Raises ConfigError when the
        model has nothing to quantise.
        """
