"""A step's few ints from the host's pinned memory to a GPU, and its tokens back, by a kernel.

The copy engine takes some microseconds to begin, and the queue some to go on after it: between two steps of a small
model that is a fiftieth of the time. A kernel reads and writes the host's memory itself.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["copy_ints"]

_BLOCK = 512
# Beyond, the copy engine is faster.
_MOST_INTS = 16 * 1024


def copy_ints(source: torch.Tensor, target: torch.Tensor) -> None:
    """`target[:] = source`, int32 of one length; where one is on a device, the copy is put on its queue."""
    count = source.shape[0]
    # A step after which nothing is chosen gives no tokens.
    if 0 < count <= _MOST_INTS and _reaches(source, target):
        _copy_ints[(triton.cdiv(count, _BLOCK),)](source, target, count, BLOCK=_BLOCK, num_warps=4)
    else:
        target.copy_(source, non_blocking=True)


def _reaches(source: torch.Tensor, target: torch.Tensor) -> bool:
    """Whether a kernel gets to both: of the host's memory to what is pinned."""
    if source.is_cuda == target.is_cuda or torch.version.hip is not None:
        return False
    return (target if source.is_cuda else source).is_pinned()


@triton.jit(do_not_specialize=["count"])
def _copy_ints(source, target, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    tl.store(target + at, tl.load(source + at, mask=inside), mask=inside)
