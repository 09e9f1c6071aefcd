"""Rows of an 8-bit embedding table, in the model's own precision."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from workbench.engine.low_bit_weight import LowBitWeight

__all__ = ["table_rows"]

_BLOCK = 1024


def table_rows(table: LowBitWeight, ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[ids, columns] of an INT8 `table`; `ids` int64 or int32 [ids]."""
    out = torch.empty(len(ids), table.columns, dtype=dtype, device=ids.device)
    _table_rows[(len(ids), triton.cdiv(table.columns, _BLOCK))](
        table.data, table.scales, ids, out, table.columns, BLOCK=_BLOCK, num_warps=4
    )
    return out


@triton.jit
def _table_rows(data, scales, ids, out, num_columns, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64)
    row = tl.load(ids + at).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < num_columns
    numbers = tl.load(data + row * num_columns + columns, mask=inside, other=0).to(tl.float32)
    wide = numbers * tl.load(scales + row)
    tl.store(out + at * num_columns + columns, wide.to(out.dtype.element_ty), mask=inside)
