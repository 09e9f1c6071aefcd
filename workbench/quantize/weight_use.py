"""What a matrix is for, as far as rounding it well depends on that."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["WeightUse"]


@dataclass(frozen=True)
class WeightUse:
    """`is_table` says that rows are looked up, `is_head` that it makes the logits; `column_weights` [columns] is the
    mean square of what each column is multiplied with, None where nobody looked."""

    is_table: bool = False
    column_weights: torch.Tensor | None = None
    is_head: bool = False
