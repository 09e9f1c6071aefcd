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

    def join_columns(self, part: torch.Tensor, widths: list[int]) -> torch.Tensor:
        """Every rank's `part` [rows, widths[rank]] side by side, on every rank."""
        if self.size == 1:
            return part
        # Ranks exchange pieces of one size.
        widest = max(widths)
        padded = torch.nn.functional.pad(part, (0, widest - part.shape[1])).contiguous()
        pieces = list(part.new_empty(self.size, *padded.shape).unbind())
        with reaching_peers():
            dist.all_gather(pieces, padded, group=self._process_group)
        return torch.cat([piece[:, :width] for piece, width in zip(pieces, widths, strict=True)], dim=1)
