"""Choosing the next token of every row on the device: greedy, or by temperature, top-k, top-p and min-p.

The likeliest token is looked for in parts of the vocabulary, so that one row fills the device too; one program per row
then joins them. Truncation finds the smallest kept probability by bisection instead of sorting, and the draw
inverts the cumulative distribution over the vocabulary at the row's own random number.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["SAMPLING_FIELDS", "sample_tokens"]

# Columns of the parameter table, float32: temperature 0 is greedy, top_k 0 is off.
SAMPLING_FIELDS = ("temperature", "top_k", "top_p", "min_p", "draw")
_BISECTIONS = 26
_BLOCK = 4096
# Two for each of 132 multiprocessors.
_WANTED_PROGRAMS = 264


def sample_tokens(logits: torch.Tensor, settings: torch.Tensor, out: torch.Tensor, *, greedy: bool) -> torch.Tensor:
    """Fill `out` [rows] int32 from `logits` [rows, vocab] and `settings` [rows, 5] (see SAMPLING_FIELDS).

    `greedy` promises that every row's temperature is 0. A row whose logits hold a NaN gets -1.
    """
    rows, vocab = logits.shape
    parts = _num_parts(rows, vocab)
    best = torch.empty(rows, parts, dtype=torch.float32, device=logits.device)
    best_at = torch.empty(rows, parts, dtype=torch.int32, device=logits.device)
    _best_of_part[(rows, parts)](
        logits, best, best_at, vocab, logits.stride(0), BLOCK=_BLOCK, PARTS=parts, num_warps=16
    )
    _sample[(rows,)](
        logits,
        best,
        best_at,
        settings,
        out,
        vocab,
        logits.stride(0),
        BLOCK=_BLOCK,
        BISECTIONS=_BISECTIONS,
        GREEDY=greedy,
        PARTS=parts,
        num_warps=16,
    )
    return out


def _num_parts(rows: int, vocab: int) -> int:
    """A power of two: enough for all rows to fill the device, and a block for each part."""
    useful: int = max(1, min(_WANTED_PROGRAMS // rows, triton.cdiv(vocab, _BLOCK)))
    return 1 << (useful.bit_length() - 1)


@triton.jit
def _best_of_part(logits, best, best_at, vocab, stride, BLOCK: tl.constexpr, PARTS: tl.constexpr):
    """The largest logit of a part and where it is: of equal ones the first. -1 where a logit is NaN."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    length = tl.cdiv(tl.cdiv(vocab, PARTS), BLOCK) * BLOCK
    end = tl.minimum((part + 1) * length, vocab)
    columns = tl.arange(0, BLOCK)
    largest = tl.full([BLOCK], float("-inf"), tl.float32)
    largest_at = tl.zeros([BLOCK], tl.int32)
    broken = tl.zeros([BLOCK], tl.int32)
    for start in range(part * length, end, BLOCK):
        at = start + columns
        x = tl.load(logits + row * stride + at, mask=at < end, other=float("-inf")).to(tl.float32)
        broken += (x != x).to(tl.int32)
        better = x > largest
        largest = tl.where(better, x, largest)
        largest_at = tl.where(better, at, largest_at)
    top = tl.max(largest, axis=0)
    token = tl.min(tl.where(largest == top, largest_at, 2147483647), axis=0)
    tl.store(best + row * PARTS + part, top)
    tl.store(best_at + row * PARTS + part, tl.where(tl.sum(broken, axis=0) > 0, -1, token))


@triton.jit
def _sample(
    logits, best, best_at, settings, out, vocab, stride,
    BLOCK: tl.constexpr, BISECTIONS: tl.constexpr, GREEDY: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    parts = row * PARTS + tl.arange(0, PARTS)
    tops, places = tl.load(best + parts), tl.load(best_at + parts)
    top = tl.max(tops, axis=0)
    token = tl.min(tl.where(tops == top, places, 2147483647), axis=0).to(tl.int64)
    broken = tl.min(places, axis=0) < 0
    if not GREEDY:
        temperature = tl.load(settings + row * 5)
        if temperature > 0:
            source = logits + row * stride
            token = _draw(source, vocab, top, temperature, settings + row * 5, token, BLOCK, BISECTIONS)
    tl.store(out + row, tl.where(broken, -1, token))


@triton.jit
def _mass(source, vocab, top, temperature, threshold, BLOCK: tl.constexpr):
    """Sum and count of exp((logit - top) / temperature) that are at least `threshold`."""
    columns = tl.arange(0, BLOCK)
    mass = tl.zeros([BLOCK], tl.float32)
    count = tl.zeros([BLOCK], tl.float32)
    for start in range(0, vocab, BLOCK):
        x = tl.load(source + start + columns, mask=start + columns < vocab, other=float("-inf")).to(tl.float32)
        p = tl.exp((x - top) / temperature)
        kept = p >= threshold
        mass += tl.where(kept, p, 0.0)
        count += tl.where(kept & (p > 0.0), 1.0, 0.0)
    return tl.sum(mass, axis=0), tl.sum(count, axis=0)


@triton.jit
def _draw(source, vocab, top, temperature, settings, fallback, BLOCK: tl.constexpr, BISECTIONS: tl.constexpr):
    top_k = tl.load(settings + 1)
    top_p = tl.load(settings + 2)
    min_p = tl.load(settings + 3)
    draw = tl.load(settings + 4)
    # The likeliest token weighs 1, so weights are shares of it and min_p is a threshold as it stands.
    threshold = 0.0
    if top_k > 0:
        low, high = 0.0, 1.0
        for _ in range(BISECTIONS):
            middle = tl.where(low > 0.0, tl.sqrt(low * high), high * 1e-4)
            _, count = _mass(source, vocab, top, temperature, middle, BLOCK)
            low = tl.where(count >= top_k, middle, low)
            high = tl.where(count >= top_k, high, middle)
        threshold = low
    if top_p < 1.0:
        whole, _ = _mass(source, vocab, top, temperature, threshold, BLOCK)
        low, high = threshold, 1.0
        for _ in range(BISECTIONS):
            middle = tl.where(low > 0.0, tl.sqrt(low * high), high * 1e-4)
            mass, _ = _mass(source, vocab, top, temperature, middle, BLOCK)
            low = tl.where(mass >= top_p * whole, middle, low)
            high = tl.where(mass >= top_p * whole, high, middle)
        threshold = low
    threshold = tl.maximum(threshold, min_p)
    mass, _ = _mass(source, vocab, top, temperature, threshold, BLOCK)
    target = draw * mass
    columns = tl.arange(0, BLOCK)
    before = 0.0
    token = fallback
    found = 0
    for start in range(0, vocab, BLOCK):
        x = tl.load(source + start + columns, mask=start + columns < vocab, other=float("-inf")).to(tl.float32)
        p = tl.exp((x - top) / temperature)
        p = tl.where(p >= threshold, p, 0.0)
        here = tl.sum(p, axis=0)
        if (found == 0) & (before + here > target):
            cumulative = before + tl.cumsum(p, axis=0)
            at = tl.min(tl.where((cumulative > target) & (p > 0.0), columns, BLOCK), axis=0)
            if at < BLOCK:
                token = (start + at).to(tl.int64)
                found = 1
        before += here
    return token
