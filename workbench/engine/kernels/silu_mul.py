"""The gated activation between the two halves of a feed-forward layer."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["silu_mul"]

_BLOCK = 1024


def silu_mul(gate_up: torch.Tensor, out: torch.Tensor, *, pdl: bool = False) -> torch.Tensor:
    """`out = silu(gate) * up` for `gate_up` [rows, 2 * width] (gates first), `out` [rows, width]. `pdl`: see gemv."""
    rows, width = out.shape
    how = {"launch_pdl": True} if pdl else {}
    _silu_mul[(rows, triton.cdiv(width, _BLOCK))](gate_up, out, width, BLOCK=_BLOCK, PDL=pdl, num_warps=4, **how)
    return out


@triton.jit
def _silu_mul(gate_up, out, width, BLOCK: tl.constexpr, PDL: tl.constexpr):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    gate = tl.load(gate_up + row * 2 * width + columns, mask=inside, other=0.0)
    up = tl.load(gate_up + row * 2 * width + width + columns, mask=inside, other=0.0)
    wide = gate.to(tl.float32)
    silu = (wide / (1.0 + tl.exp(-wide))).to(gate.dtype).to(tl.float32)
    tl.store(out + row * width + columns, (silu * up.to(tl.float32)).to(gate.dtype), mask=inside)
