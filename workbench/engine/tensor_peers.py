"""What a decoder asks of the other ranks that hold pieces of the same layers."""

from __future__ import annotations

from typing import Protocol

import torch

__all__ = ["TensorPeers"]


class TensorPeers(Protocol):
    """`rank` of `size`, counted from 0. Every rank calls the same in the same order."""

    rank: int
    size: int

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Every rank's `tensor` added up, in place and on every rank."""
        ...

    def join_columns(self, part: torch.Tensor, widths: list[int]) -> torch.Tensor:
        """Every rank's `part` [rows, widths[rank]] side by side, on every rank."""
        ...
