"""The ranks that hold pieces of the same layers, and the sums they form together."""

from __future__ import annotations

import torch
import torch.distributed as dist

__all__ = ["TensorGroup"]


class TensorGroup:
    """`size` ranks; `process_group` is torch's, None for a rank by itself."""

    def __init__(self, rank: int = 0, size: int = 1, process_group: dist.ProcessGroup | None = None) -> None:
        self.rank = rank
        self.size = size
        self._process_group = process_group

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Every rank's `tensor` added up, in place and on every rank."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self._process_group)
        return tensor
