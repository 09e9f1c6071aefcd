"""A vocabulary that embedding and head have in common, of a model whose embedding and head lie on two stages.

It lies once, in the memory that an engine and its ranks share: the last stage's ranks fill it as they load and compute
logits with it, the first stage's look rows up in it. A GPU computes with a copy of its own, and the first stage's rows
then come from the host.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from workbench.backends import torch_dtype
from workbench.models.loaded_model import is_tied

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["MappedTable", "SharedTable"]


@dataclass(frozen=True)
class SharedTable:
    """The facts of such a table [rows, columns], which lies at the beginning of the shared memory."""

    num_rows: int
    num_columns: int
    dtype: str

    @classmethod
    def of(cls, shell: PreTrainedModel, dtype: str, num_stages: int) -> SharedTable | None:
        """That of a whole model; None where one stage has both ends, or where each has its own."""
        if num_stages == 1 or not is_tied(shell):
            return None
        table: Any = shell.get_input_embeddings().weight
        return cls(table.shape[0], table.shape[1], dtype)

    @property
    def num_bytes(self) -> int:
        """What it takes of the shared memory: whole pages."""
        num_bytes = self.num_rows * self.num_columns * torch_dtype(self.dtype).itemsize
        return -(-num_bytes // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY

    def make(self, fd: int) -> None:
        """Give a memory file its size, before anybody maps the table."""
        os.ftruncate(fd, self.num_bytes)

    def map(self, fd: int) -> torch.Tensor:
        """The table, all zeros until the last stage has filled it."""
        numbers = torch.frombuffer(mmap.mmap(fd, self.num_bytes), dtype=torch_dtype(self.dtype))
        return numbers[: self.num_rows * self.num_columns].view(self.num_rows, self.num_columns)


class MappedTable:
    """A shared table in one rank, which computes on `device`."""

    def __init__(self, rows: torch.Tensor, device: str) -> None:
        self._rows = rows
        self._device = torch.device(device)

    def fill(self, span: range, part: torch.Tensor) -> torch.Tensor:
        """For the last stage: put a rank's rows in. What the rank computes with is given back."""
        rows = self._rows[span.start : span.stop]
        rows.copy_(part)
        return rows if self._device.type == "cpu" else part

    def lend(self, embedding: nn.Embedding) -> None:
        """For the first stage: have an embedding without a weight look its rows up here."""
        embedding.weight = self._rows
        if self._device.type != "cpu":
            embedding.register_forward_pre_hook(_to_host)
            embedding.register_forward_hook(self._to_device)

    def _to_device(self, module: nn.Module, inputs: object, rows: torch.Tensor) -> torch.Tensor:
        # From pinned memory, so that nobody waits for what the device still computes.
        return rows.pin_memory().to(self._device, non_blocking=True)


def _to_host(embedding: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    # Some families scale rows by a buffer of the embedding.
    embedding.cpu()
    return (inputs[0].cpu(),)
