"""Paged attention against float64 attention over random block tables."""

import itertools

import pytest
import torch

from workbench.engine.attention import AttentionOptions
from workbench.engine.kernels.paged_chunk import attend_chunks
from workbench.engine.kernels.paged_decode import DecodeTile, DecodeWorkspace, NewTokens, attend_decodes, num_splits
from workbench.engine.kernels.paged_guesses import attend_guesses
from workbench.engine.kernels.rope_store import rope_and_store
from workbench.engine.kernels.tiles import CHUNK_QUERIES, GUESS_QUERIES

BLOCK_SIZE = 16
LENGTHS = (1, 130, 64)

CASES = {
    "grouped": (8, 2, 64, {}),
    "one kv head": (8, 1, 128, {}),
    "odd group and size, window": (6, 2, 80, {"sliding_window": 37}),
    "wide": (2, 1, 256, {}),
    "softcap": (4, 2, 64, {"softcap": 5.0}),
    "sinks": (4, 2, 64, {"sinks": True}),
}


class Pool:
    """Random keys and values in shuffled blocks, and what each sequence holds."""

    def __init__(self, kv_heads: int, dim: int, device: str) -> None:
        counts = [-(-n // BLOCK_SIZE) for n in LENGTHS]
        self.keys, self.values = (
            torch.randn(sum(counts) + 3, BLOCK_SIZE, kv_heads, dim, device=device) for _ in range(2)
        )
        self.starts = list(itertools.accumulate([0, *counts]))[:-1]
        self.table = torch.randperm(sum(counts) + 3, device=device)[: sum(counts)].int()
        self.blocks = [self.table[s : s + c].long() for s, c in zip(self.starts, counts, strict=True)]

    def held(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        length, blocks = LENGTHS[index], self.blocks[index]
        return self.keys[blocks].flatten(0, 1)[:length], self.values[blocks].flatten(0, 1)[:length]


def reference(query, keys, values, positions, options):
    group = query.shape[1] // keys.shape[1]
    keys, values = (t.repeat_interleave(group, 1).double() for t in (keys, values))
    scores = torch.einsum("nhd,lhd->hnl", query.double(), keys) * options.scale
    if options.softcap is not None:
        scores = torch.tanh(scores / options.softcap) * options.softcap
    at = torch.arange(keys.shape[0], device=query.device)
    allowed = at[None] <= positions[:, None]
    if options.sliding_window:
        allowed &= at[None] > positions[:, None] - options.sliding_window
    scores = scores.masked_fill(~allowed, float("-inf"))
    if options.sinks is not None:
        sinks = options.sinks.double()[:, None, None].expand(-1, scores.shape[1], 1)
        scores = torch.cat((scores, sinks), -1)
    return torch.einsum("hnl,lhd->nhd", scores.softmax(-1)[..., : keys.shape[0]], values)


def make_case(name: str, device: str):
    torch.manual_seed(0)
    heads, kv_heads, dim, extra = CASES[name]
    sinks = torch.randn(heads, device=device) if extra.get("sinks") else None
    extra = {key: value for key, value in extra.items() if key != "sinks"}
    return heads, dim, Pool(kv_heads, dim, device), AttentionOptions(dim**-0.5, sinks=sinks, **extra)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("splits", [1, 4])
def test_decodes(name: str, splits: int, device: str) -> None:
    heads, dim, pool, options = make_case(name, device)
    rows, kv_heads = len(LENGTHS), pool.keys.shape[2]
    query = torch.randn(rows, heads, dim, device=device)
    out = torch.full_like(query, float("nan"))
    workspace = DecodeWorkspace.allocate(rows * splits, heads, kv_heads, dim, device)
    starts, lengths = (torch.tensor(n, dtype=torch.int32, device=device) for n in (pool.starts, LENGTHS))
    attend_decodes(query, pool.keys, pool.values, pool.table, starts, lengths, options, out, workspace, splits)
    for i, length in enumerate(LENGTHS):
        expected = reference(query[i : i + 1], *pool.held(i), torch.tensor([length - 1], device=device), options)
        torch.testing.assert_close(out[i : i + 1].double(), expected, rtol=1e-4, atol=1e-5)
    # The next launch counts arrivals from zero again.
    assert not workspace.counters.any()


@pytest.mark.parametrize("name", CASES)
def test_chunks(name: str, device: str) -> None:
    heads, dim, pool, options = make_case(name, device)
    counts = (1, 50, 40)
    firsts = list(itertools.accumulate([0, *counts]))[:-1]
    tiles = [
        (first + offset, min(CHUNK_QUERIES, count - offset), start, length - count + offset)
        for first, count, start, length in zip(firsts, counts, pool.starts, LENGTHS, strict=True)
        for offset in range(0, count, CHUNK_QUERIES)
    ]
    # A tile without rows, as captured graphs have them.
    tiles.append((0, 0, 0, 0))
    query = torch.randn(sum(counts), heads, dim, device=device)
    out = torch.full_like(query, float("nan"))
    packed = torch.tensor(tiles, dtype=torch.int32, device=device)
    attend_chunks(query, pool.keys, pool.values, pool.table, packed, options, out)
    for i, (first, count, length) in enumerate(zip(firsts, counts, LENGTHS, strict=True)):
        span, at = slice(first, first + count), torch.arange(length - count, length, device=device)
        expected = reference(query[span], *pool.held(i), at, options)
        torch.testing.assert_close(out[span].double(), expected, rtol=1e-4, atol=1e-5)


def test_splits_fill_the_device_and_are_powers_of_two() -> None:
    for rows, kv_heads, length in itertools.product((1, 8, 100, 256), (1, 8, 32), (64, 1000, 131072)):
        splits = num_splits(rows, kv_heads, length)
        assert splits & (splits - 1) == 0
        assert 1 <= splits <= 32
    assert num_splits(1, 8, 8192) == 32
    assert num_splits(256, 8, 8192) == 1
    assert num_splits(32, 8, 8192) == 2
    # Whatever the rows, their parts have room.
    for kv_heads in (1, 8, 32):
        parts = DecodeWorkspace.allocate(256, 32, kv_heads, 16, "cpu").sums.shape[0]
        assert max(rows * num_splits(rows, kv_heads, 8192) for rows in range(1, 257)) <= parts


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize("kept", [torch.float32, torch.float8_e4m3fn])
def test_decodes_that_bring_their_own_token(normed: bool, splits: int, kept: torch.dtype, device: str) -> None:
    """The same as rotating and storing first; also with keys and values kept in 8 bits, and beside a padding row."""
    heads, dim, pool, options = make_case("odd group and size, window", device)
    rows, kv_heads = len(LENGTHS), pool.keys.shape[2]
    keys, values = pool.keys.to(kept), pool.values.to(kept)
    qkv = torch.randn(rows + 1, (heads + 2 * kv_heads) * dim, device=device)
    angles = torch.rand(max(LENGTHS), dim // 2, device=device).repeat(1, 2)
    norms = torch.randn(2, dim, device=device) if normed else (None, None)
    padding = (len(keys) - 1) * BLOCK_SIZE
    last = [n - 1 for n in LENGTHS]
    slots = [int(b[p // BLOCK_SIZE]) * BLOCK_SIZE + p % BLOCK_SIZE for b, p in zip(pool.blocks, last, strict=True)]
    ints = [[*slots, padding], [*pool.starts, 0], [*LENGTHS, 0], [*last, 0]]
    slots, starts, lengths, positions = (torch.tensor(n, dtype=torch.int32, device=device) for n in ints)
    workspace = DecodeWorkspace.allocate((rows + 1) * splits, heads, kv_heads, dim, device)

    def attend(query, keys, values, new=None):
        out = torch.full((rows + 1, heads, dim), float("nan"), device=device)
        # The new tokens' tile is that of a batch whose rows fill a device many times.
        tile = None if new is None else DecodeTile.of(dim, 2, 4096)
        attend_decodes(
            query, keys, values, pool.table, starts, lengths, options, out, workspace, splits, new, tile=tile
        )
        return out

    first = [t.clone() for t in (qkv, keys, values)]
    rope_and_store(
        first[0], angles.cos(), angles.sin(), positions, slots, first[1], first[2], heads,
        query_norm=norms[0], key_norm=norms[1], eps=1e-5,
    )  # fmt: skip
    expected = attend(first[0][:, : heads * dim].unflatten(1, (heads, dim)), first[1], first[2])
    new = NewTokens(angles.cos(), angles.sin(), slots, norms[0], norms[1], 1e-5)
    out = attend(qkv[:, : heads * dim].unflatten(1, (heads, dim)), keys, values, new)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(keys.float(), first[1].float()) and torch.equal(values.float(), first[2].float())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("splits", [1, 4])
def test_guesses(name: str, splits: int, device: str) -> None:
    """The last tokens of each sequence, the first of which may be in another tile, part or block than the others."""
    heads, dim, pool, options = make_case(name, device)
    counts = (1, 11, 5)
    firsts = list(itertools.accumulate([0, *counts]))[:-1]
    tiles = [
        (first + offset, min(GUESS_QUERIES, count - offset), start, length - count + offset)
        for first, count, start, length in zip(firsts, counts, pool.starts, LENGTHS, strict=True)
        for offset in range(0, count, GUESS_QUERIES)
    ]
    tiles.append((0, 0, 0, 0))
    query = torch.randn(sum(counts), heads, dim, device=device)
    out = torch.full_like(query, float("nan"))
    workspace = DecodeWorkspace.allocate(sum(counts) * splits, heads, pool.keys.shape[2], dim, device)
    packed = torch.tensor(tiles, dtype=torch.int32, device=device)
    attend_guesses(query, pool.keys, pool.values, pool.table, packed, options, out, workspace, splits)
    for i, (first, count, length) in enumerate(zip(firsts, counts, LENGTHS, strict=True)):
        span, at = slice(first, first + count), torch.arange(length - count, length, device=device)
        expected = reference(query[span], *pool.held(i), at, options)
        torch.testing.assert_close(out[span].double(), expected, rtol=1e-4, atol=1e-5)
    assert not workspace.counters.any()


def test_the_workspace_holds_the_parts_of_every_step_with_guesses() -> None:
    for kv_heads, rows in itertools.product((1, 2, 3, 5, 8, 32), range(2, 65)):
        workspace = DecodeWorkspace.allocate(1, 1, kv_heads, 1, "cpu", rows_at_once=GUESS_QUERIES)
        splits = num_splits(-(-rows // GUESS_QUERIES), kv_heads, 131072)
        assert splits == 1 or rows * splits <= workspace.maxima.shape[0], (kv_heads, rows)
        assert rows * kv_heads <= workspace.counters.shape[0]
