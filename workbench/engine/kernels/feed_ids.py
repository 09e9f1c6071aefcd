"""The step's input tokens: what the host knows, and what the step before chose and the host has not seen yet."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["feed_ids"]

_BLOCK = 256


def feed_ids(known: torch.Tensor, source_rows: torch.Tensor, chosen: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """`out[i] = known[i]` where that is at least 0, else `chosen[source_rows[i]]`; all int32 [rows].

    A chosen -1 (a row that held a NaN) is fed as 0; the host ends such a request.
    """
    rows = known.shape[0]
    _feed_ids[(triton.cdiv(rows, _BLOCK),)](known, source_rows, chosen, out, rows, BLOCK=_BLOCK, num_warps=1)
    return out


@triton.jit
def _feed_ids(known, source_rows, chosen, out, rows, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < rows
    ids = tl.load(known + at, mask=inside, other=0)
    pending = inside & (ids < 0)
    fed = tl.load(chosen + tl.load(source_rows + at, mask=pending, other=0), mask=pending, other=0)
    tl.store(out + at, tl.maximum(tl.where(pending, fed, ids), 0), mask=inside)
