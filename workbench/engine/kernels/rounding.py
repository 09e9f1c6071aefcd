"""Rows rounded to 8 bits, as products with low-bit weights take them: by themselves, or as the last thing that a
normalisation or a gated activation does.

Integer weights meet rows in two parts, high * 128 + low, which keep 15 bits of each row's largest value: as good as
bfloat16, and integer tensor cores multiply them with weights that nobody has to unpack to floats.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from workbench.engine.kernels.norm import normalised
from workbench.engine.low_bit_weight import GROUP_COLUMNS, LowBitKind

__all__ = ["RoundedRows", "add_rms_norm_rounded", "can_round", "round_rows", "silu_mul_rounded"]


@dataclass(frozen=True)
class RoundedRows:
    """Rows [rows, columns] for weights of a kind: numbers times `scales` [rows], float32.

    FP8: `high` is e4m3, and so is `low`, the same tensor. INT8, INT4: int8, a number is high * 128 + low; for INT4 the
    columns of each group are in the order of the weights' nibbles, even ones first.
    """

    kind: LowBitKind
    high: torch.Tensor
    low: torch.Tensor
    scales: torch.Tensor

    @classmethod
    def empty(cls, rows: int, columns: int, kind: LowBitKind, device: torch.device) -> RoundedRows:
        dtype = torch.float8_e4m3fn if kind is LowBitKind.FP8 else torch.int8
        high = torch.empty(rows, columns, dtype=dtype, device=device)
        low = high if kind is LowBitKind.FP8 else torch.empty_like(high)
        return cls(kind, high, low, torch.empty(rows, dtype=torch.float32, device=device))


def can_round(kind: LowBitKind, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether rows of that type may be rounded for such weights: float32 would lose by it, and fp8 tensor cores need
    compute capability 8.9."""
    if dtype.itemsize != 2:
        return False
    if kind is not LowBitKind.FP8:
        return True
    if device.type != "cuda" or torch.version.hip is not None or dtype != torch.bfloat16:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 9)


def round_rows(x: torch.Tensor, kind: LowBitKind, *, pdl: bool = False) -> RoundedRows:
    """`x` [rows, columns] rounded. `pdl`: see gemv."""
    rows, columns = x.shape
    out = RoundedRows.empty(rows, columns, kind, x.device)
    _round_rows[(rows,)](
        x, out.high, out.low, out.scales, x.stride(0),
        COLUMNS=columns, PADDED=triton.next_power_of_2(columns), KIND=kind.value, GROUP=GROUP_COLUMNS, PDL=pdl,
        **_launch(columns, pdl),
    )  # fmt: skip
    return out


def add_rms_norm_rounded(
    residual: torch.Tensor,
    delta: torch.Tensor | None,
    weight: torch.Tensor,
    eps: float,
    kind: LowBitKind,
    *,
    pdl: bool = False,
) -> RoundedRows:
    """See add_rms_norm; what it gives comes rounded."""
    rows, hidden = residual.shape
    out = RoundedRows.empty(rows, hidden, kind, residual.device)
    _add_rms_norm_rounded[(rows,)](
        residual, residual if delta is None else delta, weight, out.high, out.low, out.scales, eps,
        HIDDEN=hidden, PADDED=triton.next_power_of_2(hidden), HAS_DELTA=delta is not None,
        KIND=kind.value, GROUP=GROUP_COLUMNS, PDL=pdl, **_launch(hidden, pdl),
    )  # fmt: skip
    return out


def silu_mul_rounded(gate_up: torch.Tensor, kind: LowBitKind, *, pdl: bool = False) -> RoundedRows:
    """See silu_mul; what it gives comes rounded."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = RoundedRows.empty(rows, width, kind, gate_up.device)
    _silu_mul_rounded[(rows,)](
        gate_up, out.high, out.low, out.scales,
        WIDTH=width, PADDED=triton.next_power_of_2(width), KIND=kind.value, GROUP=GROUP_COLUMNS, PDL=pdl,
        **_launch(width, pdl),
    )  # fmt: skip
    return out


def _launch(columns: int, pdl: bool) -> dict[str, object]:
    how: dict[str, object] = {"num_warps": 16 if columns > 8192 else 8 if columns >= 2048 else 4}
    return how | {"launch_pdl": True} if pdl else how


@triton.jit
def _store_rounded(
    v, inside, high, low, scales, row, COLUMNS: tl.constexpr, PADDED: tl.constexpr, KIND: tl.constexpr,
    GROUP: tl.constexpr,
):  # fmt: skip
    """A row `v` [PADDED] as 8 bits and a scale."""
    at = tl.arange(0, PADDED)
    largest = tl.maximum(tl.max(tl.abs(v), axis=0), 1e-12)
    if KIND == "fp8":
        scale = largest / 448.0
        tl.store(scales + row, scale)
        tl.store(high + row * COLUMNS + at, (v / scale).to(high.dtype.element_ty), mask=inside)
    else:
        # 127 * 128: both parts fit a signed byte.
        scale = largest / 16256.0
        tl.store(scales + row, scale)
        number = v / scale
        upper = tl.floor(number / 128.0 + 0.5)
        lower = tl.floor(number - upper * 128.0 + 0.5)
        place = at
        if KIND == "int4":
            # Nibble k of word i of a group is column 16 * k + i; byte b of a word has nibbles 2b and 2b + 1.
            nibble = at % GROUP // 16
            place = at // GROUP * GROUP + nibble % 2 * (GROUP // 2) + at % 16 * 4 + nibble // 2
        tl.store(high + row * COLUMNS + place, upper.to(tl.int8), mask=inside)
        tl.store(low + row * COLUMNS + place, lower.to(tl.int8), mask=inside)


@triton.jit
def _round_rows(
    x, high, low, scales, stride,
    COLUMNS: tl.constexpr, PADDED: tl.constexpr, KIND: tl.constexpr, GROUP: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, PADDED)
    inside = at < COLUMNS
    v = tl.load(x + row * stride + at, mask=inside, other=0.0).to(tl.float32)
    _store_rounded(v, inside, high, low, scales, row, COLUMNS, PADDED, KIND, GROUP)


@triton.jit
def _add_rms_norm_rounded(
    residual, delta, weight, high, low, scales, eps,
    HIDDEN: tl.constexpr, PADDED: tl.constexpr, HAS_DELTA: tl.constexpr, KIND: tl.constexpr, GROUP: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    v = normalised(residual, delta, weight, eps, row, HIDDEN, PADDED, HAS_DELTA)
    inside = tl.arange(0, PADDED) < HIDDEN
    _store_rounded(v.to(tl.float32), inside, high, low, scales, row, HIDDEN, PADDED, KIND, GROUP)


@triton.jit
def _silu_mul_rounded(
    gate_up, high, low, scales,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, KIND: tl.constexpr, GROUP: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, PADDED)
    inside = at < WIDTH
    gate = tl.load(gate_up + row * 2 * WIDTH + at, mask=inside, other=0.0)
    up = tl.load(gate_up + row * 2 * WIDTH + WIDTH + at, mask=inside, other=0.0)
    wide = gate.to(tl.float32)
    silu = (wide / (1.0 + tl.exp(-wide))).to(gate.dtype).to(tl.float32)
    v = (silu * up.to(tl.float32)).to(gate.dtype).to(tl.float32)
    _store_rounded(v, inside, high, low, scales, row, WIDTH, PADDED, KIND, GROUP)
