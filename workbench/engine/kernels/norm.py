"""RMS normalisation, fused with the residual addition before it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["add_rms_norm", "normalised"]


def add_rms_norm(
    residual: torch.Tensor,
    delta: torch.Tensor | None,
    weight: torch.Tensor,
    eps: float,
    out: torch.Tensor,
    *,
    pdl: bool = False,
) -> torch.Tensor:
    """`residual += delta` in place, then `out = rms_norm(residual) * weight`; all [rows, hidden].

    The normalised value is rounded to the tensor's type before it meets the weight, as transformers does.
    `pdl`: see gemv.
    """
    rows, hidden = residual.shape
    _add_rms_norm[(rows,)](
        residual,
        residual if delta is None else delta,
        weight,
        out,
        eps,
        HIDDEN=hidden,
        PADDED=triton.next_power_of_2(hidden),
        HAS_DELTA=delta is not None,
        PDL=pdl,
        num_warps=8 if hidden >= 2048 else 4,
        **({"launch_pdl": True} if pdl else {}),
    )
    return out


@triton.jit
def _add_rms_norm(
    residual, delta, weight, out, eps, HIDDEN: tl.constexpr, PADDED: tl.constexpr, HAS_DELTA: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, PADDED)
    v = normalised(residual, delta, weight, eps, row, HIDDEN, PADDED, HAS_DELTA)
    tl.store(out + row * HIDDEN + columns, v, mask=columns < HIDDEN)


@triton.jit
def normalised(
    residual, delta, weight, eps, row, HIDDEN: tl.constexpr, PADDED: tl.constexpr, HAS_DELTA: tl.constexpr,
):  # fmt: skip
    """One row [PADDED] of what add_rms_norm gives; the sum is stored in `residual`."""
    columns = tl.arange(0, PADDED)
    inside = columns < HIDDEN
    at = row * HIDDEN + columns
    x = tl.load(residual + at, mask=inside, other=0.0)
    if HAS_DELTA:
        x = (x.to(tl.float32) + tl.load(delta + at, mask=inside, other=0.0).to(tl.float32)).to(x.dtype)
        tl.store(residual + at, x, mask=inside)
    wide = x.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, axis=0) / HIDDEN + eps)
    normal = (wide * scale).to(x.dtype).to(tl.float32)
    w = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    return (normal * w).to(x.dtype)
