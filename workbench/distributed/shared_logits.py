"""Logits in memory that an engine and its ranks share."""

from __future__ import annotations

import mmap
import os

import torch

__all__ = ["map_logits"]


def map_logits(fd: int, shape: tuple[int, int, int], *, makes_it: bool = False) -> torch.Tensor:
    """float32 [lanes, rows, vocabulary] at a memory file, made as large as that by whoever `makes_it`. It takes memory
    only where it is written."""
    num_bytes = torch.Size(shape).numel() * torch.float32.itemsize
    if makes_it:
        os.ftruncate(fd, num_bytes)
    return torch.frombuffer(mmap.mmap(fd, num_bytes), dtype=torch.float32).view(shape)
