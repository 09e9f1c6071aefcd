"""A Llama-like decoder as a short list of fused kernels, over the weights of a loaded transformers model.

It computes what the model's own forward computes. Architectures it does not know run through their own forward
(see module_decoder); `fused_weights.why_not` says what keeps a model from this path.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from workbench.engine.device_step import DeviceStep
from workbench.engine.fused_weights import FusedLayer, FusedWeights, Weight
from workbench.engine.kernels.gemv import gemv, gemv_gated
from workbench.engine.kernels.low_bit_matmul import LowBitWorkspace, low_bit_linear
from workbench.engine.kernels.norm import add_rms_norm
from workbench.engine.kernels.paged_chunk import attend_chunks
from workbench.engine.kernels.paged_decode import DecodeWorkspace, NewTokens, attend_decodes
from workbench.engine.kernels.rope_store import rope_and_store
from workbench.engine.kernels.silu_mul import silu_mul
from workbench.engine.low_bit_weight import LowBitWeight
from workbench.engine.paged_step import KVPool

__all__ = ["FusedDecoder"]


class FusedDecoder:
    """Runs steps over a KV pool. `weights` are `module`'s, taken over here if they are not given."""

    def __init__(
        self,
        module: torch.nn.Module,
        pool: KVPool,
        max_context: int,
        max_seqs: int,
        weights: FusedWeights | None = None,
    ) -> None:
        self._pool = pool
        self._weights = weights or FusedWeights.take(module)
        # What a transformers model of a known family has, and no class declares.
        config: Any = module.config
        self._num_heads: int = config.num_attention_heads
        shape = pool.keys[0].shape
        self._num_kv_heads, self._dim = shape[2], shape[3]
        self._cos, self._sin = _rotary_tables(module.model, max_context)
        device = self._weights.embedding.device
        self._pdl = _has_dependent_launch(device)
        self._workspace = DecodeWorkspace.allocate(
            max_seqs, self._num_heads, self._num_kv_heads, self._dim, str(device)
        )
        low_bit = self._weights.low_bit_weights()
        self._low_bit = LowBitWorkspace.allocate(low_bit, self._weights.embedding.dtype) if low_bit else None

    @torch.inference_mode()
    def forward(self, step: DeviceStep) -> torch.Tensor:
        """Logits [kept rows, vocab] of a step; its keys and values are stored in the pool."""
        if step.num_tokens == 1 and step.num_decodes == 1:
            return self._forward_one(step)
        weights, pdl, linear = self._weights, self._pdl, self._linear
        x = F.embedding(step.ids, weights.embedding)
        normal = torch.empty_like(x)
        delta = None
        for index, layer in enumerate(weights.layers):
            add_rms_norm(x, delta, layer.input_norm, layer.eps, normal, pdl=pdl)
            qkv = linear(normal, layer.qkv, layer.qkv_bias)
            delta = linear(self._attend(step, index, layer, qkv), layer.output)
            add_rms_norm(x, delta, layer.output_norm, layer.eps, normal, pdl=pdl)
            gate_up = linear(normal, layer.gate_up)
            gated = gate_up.new_empty(gate_up.shape[0], gate_up.shape[1] // 2)
            delta = linear(silu_mul(gate_up, gated, pdl=pdl), layer.down)
        assert delta is not None  # a model has layers
        if step.kept is not None:
            x, delta = x[step.kept], delta[step.kept]
            normal = torch.empty_like(x)
        return linear(add_rms_norm(x, delta, weights.norm, weights.eps, normal, pdl=pdl), weights.head)

    def _linear(self, x: torch.Tensor, weight: Weight, bias: torch.Tensor | None = None) -> torch.Tensor:
        if isinstance(weight, LowBitWeight):
            assert self._low_bit is not None  # there are such weights
            return low_bit_linear(x, weight, bias, self._low_bit)
        return F.linear(x, weight, bias)

    def _forward_one(self, step: DeviceStep) -> torch.Tensor:
        """One row: products at memory speed, with what lies between them folded in."""
        weights, pdl = self._weights, self._pdl
        x = F.embedding(step.ids, weights.embedding)[0]
        for index, layer in enumerate(weights.layers):
            qkv = x.new_empty(1, _num_rows(layer.qkv))
            gemv(x, layer.qkv, qkv[0], bias=layer.qkv_bias, norm=layer.input_norm, eps=layer.eps, pdl=pdl)
            attended = self._attend(step, index, layer, qkv)
            gemv(attended[0], layer.output, x, add_to=x, pdl=pdl)
            gated = x.new_empty(_num_rows(layer.gate_up) // 2)
            gemv_gated(x, layer.gate_up, gated, norm=layer.output_norm, eps=layer.eps, pdl=pdl)
            gemv(gated, layer.down, x, add_to=x, pdl=pdl)
        logits = x.new_empty(1, _num_rows(weights.head))
        gemv(x, weights.head, logits[0], norm=weights.norm, eps=weights.eps, pdl=pdl)
        return logits

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
        if step.tiles is not None:
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
            attend_chunks(query, keys, values, step.table, step.tiles, layer.attention, out)
        return out.flatten(1)


def _num_rows(weight: Weight) -> int:
    return weight.rows if isinstance(weight, LowBitWeight) else weight.shape[0]


def _has_dependent_launch(device: torch.device) -> bool:
    """Whether a kernel may start while the one before it ends (programmatic dependent launch)."""
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (9, 0)


def _rotary_tables(model: Any, max_context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines [max_context, dim] in the model's type, as its own rotary embedding makes them."""
    weight = model.embed_tokens.weight
    positions = torch.arange(max_context, device=weight.device).unsqueeze(0)
    cos, sin = model.rotary_emb(weight[:1].unsqueeze(0), position_ids=positions)
    return cos[0].contiguous(), sin[0].contiguous()
