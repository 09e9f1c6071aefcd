"""The ranks that hold pieces of the same layers, and the sums they form together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

__all__ = ["PeerLostError", "TensorGroup", "reaching_peers"]


class PeerLostError(Exception):
    """Another rank cannot be reached, which is its fault and not that of whoever notices."""


@contextmanager
def reaching_peers() -> Iterator[None]:
    """Around a transfer: what torch raises there becomes a PeerLostError."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLostError(str(error)) from error


class TensorGroup:
    """`size` ranks; `process_group` is torch's, None for a rank by itself."""

    def __init__(self, rank: int = 0, size: int = 1, process_group: dist.ProcessGroup | None = None) -> None:
        self.rank = rank
        self.size = size
        self._process_group = process_group

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Every rank's `tensor` added up, in place and on every rank."""
        if self.size > 1:
            with reaching_peers():
                dist.all_reduce(tensor, group=self._process_group)
        return tensor
