"""What a method makes of one matrix."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

__all__ = ["PackedWeight"]


class PackedWeight(Protocol):
    """A quantised matrix [rows, columns]; the modules made of it share its tensors."""

    def linear(self, bias: torch.Tensor | None) -> nn.Module:
        """A module that multiplies with it as `nn.Linear` would."""

    def embedding(self, dtype: torch.dtype) -> nn.Module:
        """A module that looks rows up as `nn.Embedding` would, in `dtype`."""
