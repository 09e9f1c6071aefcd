"""Logits in memory that an engine and its ranks share."""

from __future__ import annotations

import mmap
import os

import torch

__all__ = ["map_logits"]


def map_logits(fd: int, shape: tuple[int, int, int], *, begin_bytes: int = 0, makes_it: bool = False) -> torch.Tensor:
    """float32 [lanes, rows, vocabulary] at a memory file behind `begin_bytes` (whole pages) of something else. Whoever
    `makes_it` makes the file as large as that; it takes memory only where it is written."""
    num_bytes = torch.Size(shape).numel() * torch.float32.itemsize
    if makes_it:
        os.ftruncate(fd, begin_bytes + num_bytes)
    return torch.frombuffer(mmap.mmap(fd, num_bytes, offset=begin_bytes), dtype=torch.float32).view(shape)
