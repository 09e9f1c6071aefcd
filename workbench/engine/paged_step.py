"""The KV pool's tensors and one step's attention over them with torch's own kernels: CPU, and GPUs without Triton.

Rows of a step are packed without padding: first decodes, one token each, then prompt chunks one after the other.
Decodes gather their blocks into a padded batch; chunks gather theirs one sequence at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from workbench.engine.attention import AttentionOptions, LayerShape, attend_dense

__all__ = ["ChunkRows", "DecodeRows", "KVPool", "TorchStep"]


class KVPool:
    """Keys and values of every layer: per layer two tensors [num_blocks, block_size, kv_heads, dim].

    The memory is not written before it is used, so on a CPU a pool takes no more of it than has been filled once.
    Readers see only what was written: kernels mask the rest, and `clear` is for those that read whole blocks.
    """

    def __init__(
        self, layers: dict[int, LayerShape], num_blocks: int, block_size: int, dtype: torch.dtype, device: str
    ) -> None:
        self.block_size = block_size
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}
        for index, shape in layers.items():
            rows = (num_blocks, block_size, shape.num_kv_heads)
            self.keys[index] = torch.empty(*rows, shape.key_dim, dtype=dtype, device=device)
            self.values[index] = torch.empty(*rows, shape.value_dim, dtype=dtype, device=device)

    def write(self, layer_index: int, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Store new `key` and `value` [tokens, heads, dim] at `slots` [tokens], block * block_size + offset."""
        for pool, new in ((self.keys[layer_index], key), (self.values[layer_index], value)):
            if pool.dtype == new.dtype:
                pool.flatten(0, 1).index_copy_(0, slots, new)
            else:  # 8-bit floats are copied as the bytes they are: torch indexes no others
                target = pool.view(torch.uint8).flatten(0, 1)
                target.index_copy_(0, slots, new.to(pool.dtype).view(torch.uint8))

    def clear(self, block_ids: torch.Tensor) -> None:
        """Zero whole blocks, `block_ids` [n]."""
        for tensor in (*self.keys.values(), *self.values.values()):
            # 8-bit floats are zero where their bytes are.
            (tensor.view(torch.uint8) if tensor.itemsize == 1 else tensor).index_fill_(0, block_ids, 0)


@dataclass(frozen=True)
class DecodeRows:
    """Rows `start .. start+rows` of the step, one token each.

    `block_ids` [rows * blocks] pads every row's table to the longest; `lengths` [rows] counts the tokens a row may
    see, its own included.
    """

    start: int
    block_ids: torch.Tensor
    lengths: torch.Tensor


@dataclass(frozen=True)
class ChunkRows:
    """Rows `start .. start+num_new` of the step: consecutive tokens of one sequence, the last at `length - 1`."""

    start: int
    num_new: int
    length: int
    block_ids: torch.Tensor


@dataclass
class TorchStep:
    """One step's attention; masks are made once and shared by the layers that need the same.

    Queries of one head are multiplied in multiples of `query_rows`, filled up with zeros.
    """

    pool: KVPool
    slots: torch.Tensor
    decodes: list[DecodeRows]
    chunks: list[ChunkRows]
    query_rows: int = 1
    _masks: dict[tuple[object, ...], torch.Tensor | None] = field(default_factory=dict)

    def attend(
        self,
        layer_index: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        options: AttentionOptions,
    ) -> torch.Tensor:
        """See StepAttention.attend. Rows beyond the slots are padding: they store nothing and attend to nothing."""
        num_rows = self.slots.shape[0]
        self.pool.write(layer_index, self.slots, key[:num_rows], value[:num_rows])
        keys, values = self.pool.keys[layer_index], self.pool.values[layer_index]
        out = query.new_empty(query.shape[0], query.shape[1], value.shape[2])
        out[num_rows:] = 0
        for rows in self.decodes:
            self._attend_decodes(rows, query, keys, values, options, out)
        for chunk in self.chunks:
            self._attend_chunk(chunk, query, keys, values, options, out)
        return out

    def _attend_decodes(
        self,
        rows: DecodeRows,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        options: AttentionOptions,
        out: torch.Tensor,
    ) -> None:
        num_rows = rows.lengths.shape[0]
        span = slice(rows.start, rows.start + num_rows)
        key, value = (_gather(t, rows.block_ids, num_rows, query.dtype) for t in (keys, values))
        mask = self._decode_mask(rows, key.shape[2], options.sliding_window)
        group = query.shape[1] // keys.shape[2]
        if options.sinks is None:
            # The query heads that share a KV head become the rows of one small matrix: [rows, kv_heads, group, dim].
            queries = query[span].unflatten(1, (-1, group))
        else:
            queries = query[span].unsqueeze(2)
            key, value = (t.repeat_interleave(group, dim=1) for t in (key, value))
        num_queries = queries.shape[2]
        result = attend_dense(self._filled_up(queries), key, value, mask, options)
        out[span] = result[:, :, :num_queries].flatten(1, 2)

    def _attend_chunk(
        self,
        rows: ChunkRows,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        options: AttentionOptions,
        out: torch.Tensor,
    ) -> None:
        span = slice(rows.start, rows.start + rows.num_new)
        group = query.shape[1] // keys.shape[2]
        gathered = (_gather(t, rows.block_ids, 1, query.dtype) for t in (keys, values))
        key, value = (t.repeat_interleave(group, dim=1) for t in gathered)
        mask = self._chunk_mask(rows, key.shape[2], options.sliding_window)
        queries = self._filled_up(query[span].transpose(0, 1).unsqueeze(0))
        result = attend_dense(queries, key, value, mask, options)
        out[span] = result[0, :, : rows.num_new].transpose(0, 1)

    def _filled_up(self, queries: torch.Tensor) -> torch.Tensor:
        """Queries [batch, heads, rows, dim] with zeros for the rows up to the next multiple."""
        missing = -queries.shape[2] % self.query_rows
        return F.pad(queries, (0, 0, 0, missing)) if missing else queries

    def _decode_mask(self, rows: DecodeRows, num_positions: int, window: int | None) -> torch.Tensor:
        name = ("decode", rows.start, window)
        mask = self._masks.get(name)
        if mask is None:
            positions = torch.arange(num_positions, device=rows.lengths.device)
            lengths = rows.lengths[:, None]
            mask = positions < lengths
            if window is not None:
                mask &= positions >= lengths - window
            mask = self._masks[name] = mask[:, None, None, :]
        return mask

    def _chunk_mask(self, rows: ChunkRows, num_positions: int, window: int | None) -> torch.Tensor | None:
        """Boolean [num_new, num_positions]; None where plain causal attention says the same.

        The last block is never cut to the chunk's length, since torch sums over a length that is no multiple of its
        vectors in another order: a token would come out otherwise in a chunk than in a decode.
        """
        whole = rows.num_new == rows.length == num_positions and rows.num_new % self.query_rows == 0
        if whole and (window is None or window >= rows.length):
            return None
        name = ("chunk", rows.start, window)
        if name not in self._masks:
            device = rows.block_ids.device
            key_positions = torch.arange(num_positions, device=device)
            num_queries = -(-rows.num_new // self.query_rows) * self.query_rows
            first = rows.length - rows.num_new
            query_positions = torch.arange(first, first + num_queries, device=device)[:, None]
            mask = key_positions <= query_positions
            if window is not None:
                mask &= key_positions > query_positions - window
            self._masks[name] = mask
        return self._masks[name]


def _gather(cache: torch.Tensor, block_ids: torch.Tensor, num_rows: int, dtype: torch.dtype) -> torch.Tensor:
    """Blocks [num_blocks, block_size, heads, dim] -> [rows, heads, blocks * block_size, dim] in `dtype`."""
    if cache.dtype == dtype:
        picked = cache.index_select(0, block_ids)
    else:  # as bytes: torch picks no 8-bit floats
        picked = cache.view(torch.uint8).index_select(0, block_ids).view(cache.dtype).to(dtype)
    return picked.view(num_rows, -1, *cache.shape[2:]).transpose(1, 2)
