"""A product that is cut along its columns to fill the device: in how many parts, and how they become one again."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["num_parts", "store_part"]

_MAX_PARTS = 8


def num_parts(num_tiles: int, num_steps: int, wanted_programs: int) -> int:
    """A power of two that fills the device with so many programs and leaves every part a step at least."""
    parts = 1
    while parts < _MAX_PARTS and num_tiles * parts * 2 <= wanted_programs and parts * 2 <= num_steps:
        parts *= 2
    return parts


@triton.jit
def store_part(
    total, part, out, sums, counters, rows, weight_rows, mask, num_weight_rows,
    PARTS: tl.constexpr, TILE_ROWS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Store a tile [TILE_ROWS, TILE] of the product `out` [rows, num_weight_rows]. The last part to arrive adds all in
    their order, so that the result does not depend on who came when. `counters` are 0 before and after."""
    target = out + rows[None, :].to(tl.int64) * num_weight_rows + weight_rows[:, None]
    if PARTS == 1:
        tl.store(target, total.to(out.dtype.element_ty), mask=mask)
    else:
        tile = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
        at = tl.arange(0, TILE_ROWS)[:, None] * TILE + tl.arange(0, TILE)[None, :]
        tl.store(sums + (tile * PARTS + part) * TILE_ROWS * TILE + at, total)
        # Every thread's stores must be out before the counter says so.
        tl.debug_barrier()
        arrived = tl.atomic_add(counters + tile, 1, sem="acq_rel", scope="gpu")
        if arrived == PARTS - 1:
            total = tl.zeros([TILE_ROWS, TILE], tl.float32)
            for other in range(PARTS):
                total += tl.load(sums + (tile * PARTS + other) * TILE_ROWS * TILE + at, cache_modifier=".cg")
            tl.store(target, total.to(out.dtype.element_ty), mask=mask)
            tl.store(counters + tile, 0)
