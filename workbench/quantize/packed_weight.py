"""What a method makes of one matrix, and how it goes into a file and comes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

import torch
from torch import nn

__all__ = ["PackedModule", "PackedWeight"]


class PackedWeight(Protocol):
    """A quantised matrix [rows, columns]; the modules made of it share its tensors.

    `kind` is its name in files. `tensors` and `facts` (plain numbers and words) are what a file keeps of it, the same
    on every machine and device; `from_file` builds it again on `device`.
    """

    kind: ClassVar[str]

    def linear(self, bias: torch.Tensor | None) -> nn.Module:
        """A module that multiplies with it as `nn.Linear` would."""

    def embedding(self, dtype: torch.dtype) -> nn.Module:
        """A module that looks rows up as `nn.Embedding` would, in `dtype`."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a file keeps."""

    def facts(self) -> dict[str, int | bool]:
        """What a file says beside the tensors."""

    @classmethod
    def from_file(
        cls, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, int | bool], device: str
    ) -> PackedWeight:
        """The weight again, from tensors on the CPU."""


class PackedModule(nn.Module):
    """A module made of one packed weight; weights that share `key` share their memory."""

    @property
    def packed_weight(self) -> PackedWeight:
        """The weight that this module holds."""
        raise NotImplementedError

    @property
    def key(self) -> int:
        """Address of the weight's first tensor."""
        return next(self.buffers()).data_ptr()
