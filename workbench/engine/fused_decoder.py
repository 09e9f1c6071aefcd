"""A Llama-like decoder as a short list of fused kernels, over the weights of a loaded transformers model.

It computes what the model's own forward computes. Architectures it does not know run through their own forward
(see module_decoder); `fused_weights.why_not` says what keeps a model from this path.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from workbench.engine.device_step import DeviceStep
from workbench.engine.fused_weights import FusedLayer, FusedWeights, Weight
from workbench.engine.kernels.few_rows import FewRowsProducts
from workbench.engine.kernels.gemv import gemv, gemv_gated
from workbench.engine.kernels.low_bit_matmul import LowBitWorkspace, low_bit_linear
from workbench.engine.kernels.narrow_matmul import NarrowWorkspace, narrow_linear, narrow_tile
from workbench.engine.kernels.norm import add_rms_norm
from workbench.engine.kernels.paged_chunk import attend_chunks
from workbench.engine.kernels.paged_decode import DecodeWorkspace, NewTokens, attend_decodes
from workbench.engine.kernels.paged_guesses import attend_guesses
from workbench.engine.kernels.rope_store import rope_and_store
from workbench.engine.kernels.rounded_matmul import MAX_ROUNDED_ROWS, rounded_linear
from workbench.engine.kernels.rounding import (
    RoundedRows,
    add_rms_norm_rounded,
    can_round,
    round_rows,
    silu_mul_rounded,
)
from workbench.engine.kernels.silu_mul import silu_mul
from workbench.engine.kernels.table_rows import table_rows
from workbench.engine.kernels.tiles import GUESS_QUERIES
from workbench.engine.low_bit_weight import LowBitKind, LowBitWeight
from workbench.engine.one_row.choice import OneRowChoice, choose_one_row
from workbench.engine.paged_step import KVPool
from workbench.engine.tensor_peers import TensorPeers

__all__ = ["FusedDecoder", "VocabularyShare"]

# cuBLASLt is up to an eighth faster than cuBLAS at so many rows where the weight has few; torch calls it where there is
# a bias to add (timed on an H200).
_LT_ROWS = range(25, 97)
_NARROW = 4096


@dataclass(frozen=True)
class VocabularyShare:
    """How many tokens of the vocabulary each rank holds, rank after rank, and the first that is this one's."""

    widths: list[int]
    first_id: int


class FusedDecoder:
    """Runs steps over a KV pool. `weights` are `module`'s, taken over here if they are not given.

    With `peers` the module is a rank's share of a model: heads, inner rows and, as `vocabulary` says, tokens. One that
    holds only some of the layers takes and gives hidden states where the embedding and the head are elsewhere.
    `one_row` says whether steps of one row are a single kernel.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        pool: KVPool,
        max_context: int,
        max_seqs: int,
        weights: FusedWeights | None = None,
        peers: TensorPeers | None = None,
        vocabulary: VocabularyShare | None = None,
    ) -> None:
        self._pool = pool
        self._weights = weights or FusedWeights.take(module)
        # With their places in the pool.
        self._layers = list(enumerate(self._weights.layers, self._weights.first_layer))
        self._peers = peers
        self._vocabulary = vocabulary
        first = self._weights.layers[0]
        shape = pool.keys[self._weights.first_layer].shape
        self._num_kv_heads, self._dim = shape[2], shape[3]
        self._num_heads = _num_rows(first.qkv) // self._dim - 2 * self._num_kv_heads
        self._cos, self._sin = _rotary_tables(module.model, max_context, first.input_norm)
        device = first.input_norm.device
        self._pdl = _has_dependent_launch(device)
        heads = self._num_heads, self._num_kv_heads, self._dim
        self._workspace = DecodeWorkspace.allocate(max_seqs, *heads, str(device))
        self._guess_workspace = DecodeWorkspace.allocate(1, *heads, str(device), rows_at_once=GUESS_QUERIES)
        low_bit = self._weights.low_bit_weights()
        self._dtype = first.input_norm.dtype
        self._low_bit = LowBitWorkspace.allocate(low_bit, self._dtype) if low_bit else None
        self._rounding_kinds = {w.kind for w in low_bit if can_round(w.kind, self._dtype, device)}
        # One row by itself is not worth rounding for 4 bits: reading them takes less time than rounding it would.
        self._rounds_one = self._rounds(first.qkv, 1) and LowBitKind.INT4 not in self._rounding_kinds
        is_short = self._pdl and self._dtype.itemsize == 2
        self._few = FewRowsProducts.where_possible(first.qkv, self._dtype, device) if is_short else None
        # Where kernels may start early, there is the copy engine that these products need.
        self._narrow = NarrowWorkspace.allocate(device) if is_short else None
        self._zeros = first.input_norm.new_zeros(_NARROW)
        self.one_row = (
            choose_one_row(self._weights, pool, self._cos, self._sin)
            if peers is None
            else OneRowChoice(None, "ranks add up what each of them has")
        )

    @contextmanager
    def one_layer_of_each_kind(self) -> Iterator[None]:
        """Within, `forward` computes only layers that differ in what their kernels are compiled for: it means nothing,
        and takes the kernels that the model takes."""
        whole = self._layers
        self._layers = list({_kind_of(layer): (index, layer) for index, layer in reversed(whole)}.values())
        try:
            yield
        finally:
            self._layers = whole

    @property
    def words(self) -> str:
        """How steps are computed."""
        why_several = self.one_row.why_not
        return "fused kernels" + (f", several for one row: {why_several}" if why_several is not None else "")

    @torch.inference_mode()
    def forward(self, step: DeviceStep) -> torch.Tensor:
        """Logits [kept rows, vocab] of a step, or hidden states [tokens, hidden] for whoever has the layers after
        these; its keys and values are stored in the pool."""
        weights, linear = self._weights, self._linear
        if self.one_row.step is not None and step.num_tokens == step.num_decodes == 1 and step.kept is None:
            return self.one_row.step.run(step, self._inputs(step)[0])
        if step.num_tokens == 1 and step.num_decodes == 1 and not self._rounds_one:
            return self._forward_one(step)
        x = self._inputs(step)
        delta = None
        for index, layer in self._layers:
            normal = self._normalise(x, delta, layer.input_norm, layer.eps, layer.qkv)
            qkv = linear(normal, layer.qkv, layer.qkv_bias)
            delta = self._sum(linear(self._attend(step, index, layer, qkv), layer.output))
            normal = self._normalise(x, delta, layer.output_norm, layer.eps, layer.gate_up)
            delta = self._sum(linear(self._gated(normal, layer), layer.down))
        assert delta is not None  # a model has layers
        if weights.head is None or weights.norm is None:
            return x.add_(delta)
        if step.kept is not None:
            x, delta = x[step.kept], delta[step.kept]
        return self._join(linear(self._normalise(x, delta, weights.norm, weights.eps, weights.head), weights.head))

    def _inputs(self, step: DeviceStep) -> torch.Tensor:
        """What the first layer here takes, in memory that may be written to."""
        return self._embed(step.ids) if step.hidden is None else step.hidden.clone()

    def _embed(self, ids: torch.Tensor) -> torch.Tensor:
        if self._peers is None or self._vocabulary is None:
            return self._look_up(ids)
        own = ids - self._vocabulary.first_id
        # Tokens of other ranks look up row 0, of which nothing is left.
        is_foreign = (own < 0) | (own >= _num_rows(self._table))
        x = self._look_up(own.masked_fill(is_foreign, 0))
        return self._sum(x.masked_fill(is_foreign.unsqueeze(1), 0))

    @property
    def _table(self) -> Weight:
        assert self._weights.embedding is not None  # else hidden states come
        return self._weights.embedding

    def _look_up(self, ids: torch.Tensor) -> torch.Tensor:
        table = self._table
        return table_rows(table, ids, self._dtype) if isinstance(table, LowBitWeight) else F.embedding(ids, table)

    def _sum(self, x: torch.Tensor) -> torch.Tensor:
        return x if self._peers is None else self._peers.sum_(x)

    def _join(self, logits: torch.Tensor) -> torch.Tensor:
        if self._peers is None or self._vocabulary is None:
            return logits
        return self._peers.join_columns(logits, self._vocabulary.widths)

    def _rounds(self, weight: Weight, rows: int) -> bool:
        """Whether so many rows are rounded before they meet the weight."""
        if not isinstance(weight, LowBitWeight) or weight.kind not in self._rounding_kinds:
            return False
        return weight.kind is LowBitKind.FP8 or rows <= MAX_ROUNDED_ROWS

    def _normalise(
        self, x: torch.Tensor, delta: torch.Tensor | None, norm: torch.Tensor, eps: float, target: Weight
    ) -> torch.Tensor | RoundedRows:
        """`x += delta`, and its normalised rows as `target` takes them."""
        if self._rounds(target, x.shape[0]):
            assert isinstance(target, LowBitWeight)
            return add_rms_norm_rounded(x, delta, norm, eps, target.kind, pdl=self._pdl)
        return add_rms_norm(x, delta, norm, eps, torch.empty_like(x), pdl=self._pdl)

    def _gated(self, normal: torch.Tensor | RoundedRows, layer: FusedLayer) -> torch.Tensor | RoundedRows:
        """A feed-forward layer's gated rows, as its last product takes them if they are rounded already."""
        if self._few is not None and self._few.take(normal, layer.gate_up):
            return self._few.linear(normal, layer.gate_up, gated=True)
        return self._gate(self._linear(normal, layer.gate_up), layer.down)

    def _gate(self, gate_up: torch.Tensor, target: Weight) -> torch.Tensor | RoundedRows:
        """Gated rows as `target` takes them."""
        rows, width = gate_up.shape
        if self._rounds(target, rows):
            assert isinstance(target, LowBitWeight)
            return silu_mul_rounded(gate_up, target.kind, pdl=self._pdl)
        return silu_mul(gate_up, gate_up.new_empty(rows, width // 2), pdl=self._pdl)

    def _linear(self, x: torch.Tensor | RoundedRows, weight: Weight, bias: torch.Tensor | None = None) -> torch.Tensor:
        if isinstance(weight, LowBitWeight) and isinstance(x, torch.Tensor) and self._rounds(weight, x.shape[0]):
            x = round_rows(x, weight.kind, pdl=self._pdl)
        out = self._fast_linear(x, weight)
        if out is not None:
            return out if bias is None else out.add_(bias)
        if not isinstance(weight, LowBitWeight):
            assert isinstance(x, torch.Tensor)  # nothing was rounded for it
            if bias is None and weight.shape[0] <= _NARROW and x.shape[0] in _LT_ROWS:
                bias = self._zeros[: weight.shape[0]]
            return F.linear(x, weight, bias)
        assert self._low_bit is not None  # there are such weights
        if isinstance(x, torch.Tensor):
            return low_bit_linear(x, weight, bias, self._low_bit)
        return rounded_linear(x, weight, bias, self._low_bit, self._dtype, pdl=self._pdl)

    def _fast_linear(self, x: torch.Tensor | RoundedRows, weight: Weight) -> torch.Tensor | None:
        """The product where one of the kernels for some rows is the fastest."""
        if self._few is not None and self._few.take(x, weight):
            return self._few.linear(x, weight)
        if self._narrow is None or isinstance(weight, LowBitWeight) and isinstance(x, torch.Tensor):
            return None
        tile = narrow_tile(weight, (x.high if isinstance(x, RoundedRows) else x).shape[0])
        return None if tile is None else narrow_linear(x, weight, self._dtype, self._narrow, tile, pdl=self._pdl)

    def _forward_one(self, step: DeviceStep) -> torch.Tensor:
        """One row: products at memory speed, with what lies between them folded in."""
        weights, pdl = self._weights, self._pdl
        x = self._inputs(step)[0]
        # Of several ranks the first adds its part to what was there, and the sum of all takes that place.
        is_first = self._peers is None or self._peers.rank == 0
        for index, layer in self._layers:
            qkv = x.new_empty(1, _num_rows(layer.qkv))
            gemv(x, layer.qkv, qkv[0], bias=layer.qkv_bias, norm=layer.input_norm, eps=layer.eps, pdl=pdl)
            attended = self._attend(step, index, layer, qkv)
            gemv(attended[0], layer.output, x, add_to=x if is_first else None, pdl=pdl)
            self._sum(x)
            gated = x.new_empty(_num_rows(layer.gate_up) // 2)
            gemv_gated(x, layer.gate_up, gated, norm=layer.output_norm, eps=layer.eps, pdl=pdl)
            gemv(gated, layer.down, x, add_to=x if is_first else None, pdl=pdl)
            self._sum(x)
        if weights.head is None or weights.norm is None:
            return x.unsqueeze(0)
        logits = x.new_empty(1, _num_rows(weights.head))
        gemv(x, weights.head, logits[0], norm=weights.norm, eps=weights.eps, pdl=pdl)
        return self._join(logits)

    def _attend(self, step: DeviceStep, index: int, layer: FusedLayer, qkv: torch.Tensor) -> torch.Tensor:
        keys, values = self._pool.keys[index], self._pool.values[index]
        query = qkv[:, : self._num_heads * self._dim].unflatten(1, (self._num_heads, self._dim))
        out = qkv.new_empty(qkv.shape[0], self._num_heads, self._dim)
        split = step.num_decodes
        norms: dict[str, Any] = {"query_norm": layer.query_norm, "key_norm": layer.key_norm, "eps": layer.eps}
        if split:
            attend_decodes(
                query[:split],
                keys,
                values,
                step.table,
                step.table_starts,
                step.lengths,
                layer.attention,
                out[:split],
                self._workspace,
                step.splits,
                NewTokens(self._cos, self._sin, step.slots[:split], **norms),
                pdl=self._pdl,
            )
        if step.tiles is not None or step.guesses is not None:
            rope_and_store(
                qkv[split:],
                self._cos,
                self._sin,
                step.positions[split:],
                step.slots[split:],
                keys,
                values,
                self._num_heads,
                **norms,
            )
        if step.tiles is not None:
            attend_chunks(query, keys, values, step.table, step.tiles, layer.attention, out)
        if step.guesses is not None:
            workspace = self._guess_workspace
            attend_guesses(query, keys, values, step.table, step.guesses, layer.attention, out, workspace, step.splits)
        return out.flatten(1)


def _kind_of(layer: FusedLayer) -> tuple[Any, ...]:
    """What a layer's kernels are compiled for."""
    values = (getattr(layer, name) for name in FusedLayer.__dataclass_fields__)
    return tuple(
        (value.kind, *value.data.shape) if isinstance(value, LowBitWeight)
        else (value.dtype, *value.shape) if isinstance(value, torch.Tensor)
        else value
        for value in values
    )  # fmt: skip


def _num_rows(weight: Weight) -> int:
    return weight.rows if isinstance(weight, LowBitWeight) else weight.shape[0]


def _has_dependent_launch(device: torch.device) -> bool:
    """Whether a kernel may start while the one before it ends (programmatic dependent launch)."""
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (9, 0)


def _rotary_tables(model: Any, max_context: int, example: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines [max_context, dim] as the model's own rotary embedding makes them, in the type and on the
    device of `example`."""
    positions = torch.arange(max_context, device=example.device).unsqueeze(0)
    cos, sin = model.rotary_emb(example, position_ids=positions)
    return cos[0].contiguous(), sin[0].contiguous()
