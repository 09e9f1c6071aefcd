"""A Llama-like decoder as a short list of fused kernels, built over the weights of a loaded transformers model.

It computes what the model's own forward computes. Architectures it does not know run through their own forward
(see module_decoder); `why_not` says what keeps a model from this path.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from workbench.engine.attention import AttentionOptions
from workbench.engine.device_step import DeviceStep
from workbench.engine.kernels.gemv import gemv, gemv_gated
from workbench.engine.kernels.norm import add_rms_norm
from workbench.engine.kernels.paged_attention import DecodeWorkspace, attend_chunks, attend_decodes
from workbench.engine.kernels.rope_store import rope_and_store
from workbench.engine.kernels.silu_mul import silu_mul
from workbench.engine.paged_step import KVPool

__all__ = ["FusedDecoder", "why_not"]

_MODEL_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
_ROPE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})


def why_not(module: torch.nn.Module) -> str | None:
    """What keeps a transformers model from the fused path, in words; None if nothing does."""
    config = module.config
    if config.model_type not in _MODEL_TYPES:
        return f"{config.model_type} is not one of {', '.join(sorted(_MODEL_TYPES))}"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}, not silu"
    rope_type = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope_type not in _ROPE_TYPES:
        return f"its rotary embedding is of type {rope_type}, which depends on the length"
    layer = module.model.layers[0]
    if layer.mlp.gate_proj.bias is not None or layer.self_attn.o_proj.bias is not None:
        return "its output or feed-forward layers have biases"
    if any(type(linear) is not torch.nn.Linear for linear in (layer.self_attn.q_proj, layer.mlp.gate_proj)):
        return f"its weights are held by {type(layer.mlp.gate_proj).__name__}"
    return None


@dataclass(frozen=True)
class _Layer:
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    output: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor
    input_norm: torch.Tensor
    output_norm: torch.Tensor
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None
    eps: float
    attention: AttentionOptions


class FusedDecoder:
    """Runs steps over a KV pool. Takes over the model's projection weights: q, k, v and gate, up become one each."""

    def __init__(self, module: torch.nn.Module, pool: KVPool, max_context: int, max_seqs: int) -> None:
        model, config = module.model, module.config
        self._pool = pool
        self._embedding = model.embed_tokens.weight
        self._head = module.lm_head.weight
        self._norm, self._eps = model.norm.weight, model.norm.variance_epsilon
        self._layers = [_fuse_layer(layer, config) for layer in model.layers]
        self._num_heads = config.num_attention_heads
        shape = pool.keys[0].shape
        self._num_kv_heads, self._dim = shape[2], shape[3]
        self._cos, self._sin = _rotary_tables(model, max_context)
        device = self._embedding.device
        self._pdl = _has_dependent_launch(device)
        self._workspace = DecodeWorkspace.allocate(
            max_seqs, self._num_heads, self._num_kv_heads, self._dim, str(device)
        )

    @torch.inference_mode()
    def forward(self, step: DeviceStep) -> torch.Tensor:
        """Logits [kept rows, vocab] of a step; its keys and values are stored in the pool."""
        if step.num_tokens == 1 and step.num_decodes == 1:
            return self._forward_one(step)
        x = F.embedding(step.ids, self._embedding)
        normal = torch.empty_like(x)
        delta = None
        for index, layer in enumerate(self._layers):
            add_rms_norm(x, delta, layer.input_norm, layer.eps, normal)
            qkv = F.linear(normal, layer.qkv, layer.qkv_bias)
            attended = self._attend(step, index, layer, qkv)
            add_rms_norm(x, F.linear(attended, layer.output), layer.output_norm, layer.eps, normal)
            gate_up = F.linear(normal, layer.gate_up)
            gated = silu_mul(gate_up, gate_up.new_empty(gate_up.shape[0], gate_up.shape[1] // 2))
            delta = F.linear(gated, layer.down)
        if step.kept is not None:
            x, delta = x[step.kept], delta[step.kept]
            normal = torch.empty_like(x)
        return F.linear(add_rms_norm(x, delta, self._norm, self._eps, normal), self._head)

    def _forward_one(self, step: DeviceStep) -> torch.Tensor:
        """One row: products at memory speed, with what lies between them folded in."""
        x = F.embedding(step.ids, self._embedding)[0]
        pdl = self._pdl
        for index, layer in enumerate(self._layers):
            qkv = x.new_empty(1, layer.qkv.shape[0])
            gemv(x, layer.qkv, qkv[0], bias=layer.qkv_bias, norm=layer.input_norm, eps=layer.eps, pdl=pdl)
            attended = self._attend(step, index, layer, qkv)
            gemv(attended[0], layer.output, x, add_to=x, pdl=pdl)
            gated = x.new_empty(layer.down.shape[1])
            gemv_gated(x, layer.gate_up, gated, norm=layer.output_norm, eps=layer.eps, pdl=pdl)
            gemv(gated, layer.down, x, add_to=x, pdl=pdl)
        logits = x.new_empty(1, self._head.shape[0])
        gemv(x, self._head, logits[0], norm=self._norm, eps=self._eps, pdl=pdl)
        return logits

    def _attend(self, step: DeviceStep, index: int, layer: _Layer, qkv: torch.Tensor) -> torch.Tensor:
        keys, values = self._pool.keys[index], self._pool.values[index]
        rope_and_store(
            qkv,
            self._cos,
            self._sin,
            step.positions,
            step.slots,
            keys,
            values,
            self._num_heads,
            query_norm=layer.query_norm,
            key_norm=layer.key_norm,
            eps=layer.eps,
        )
        query = qkv[:, : self._num_heads * self._dim].unflatten(1, (self._num_heads, self._dim))
        out = qkv.new_empty(qkv.shape[0], self._num_heads, self._dim)
        split = step.num_decodes
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
            )
        if step.tiles is not None:
            attend_chunks(query, keys, values, step.table, step.tiles, layer.attention, out)
        return out.flatten(1)


def _fuse_layer(layer: torch.nn.Module, config) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    biases = [p.bias for p in projections]
    window = getattr(attention, "sliding_window", None)
    if config.model_type == "mistral":
        window = config.sliding_window
    return _Layer(
        qkv=_join(projections),
        qkv_bias=None if biases[0] is None else torch.cat([b.detach() for b in biases]),
        output=attention.o_proj.weight,
        gate_up=_join((mlp.gate_proj, mlp.up_proj)),
        down=mlp.down_proj.weight,
        input_norm=layer.input_layernorm.weight,
        output_norm=layer.post_attention_layernorm.weight,
        query_norm=attention.q_norm.weight if hasattr(attention, "q_norm") else None,
        key_norm=attention.k_norm.weight if hasattr(attention, "k_norm") else None,
        eps=layer.input_layernorm.variance_epsilon,
        attention=AttentionOptions(scale=attention.scaling, sliding_window=window),
    )


def _join(linears: tuple[torch.nn.Linear, ...]) -> torch.Tensor:
    """One weight for linears of the same input; theirs become views of it, so that nothing is held twice."""
    joined = torch.cat([linear.weight.detach() for linear in linears])
    at = 0
    for linear in linears:
        rows = linear.weight.shape[0]
        linear.weight.data = joined[at : at + rows]
        at += rows
    return joined


def _has_dependent_launch(device: torch.device) -> bool:
    """Whether a kernel may start while the one before it ends (programmatic dependent launch)."""
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (9, 0)


def _rotary_tables(model: torch.nn.Module, max_context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines [max_context, dim] in the model's type, as its own rotary embedding makes them."""
    weight = model.embed_tokens.weight
    positions = torch.arange(max_context, device=weight.device).unsqueeze(0)
    cos, sin = model.rotary_emb(weight[:1].unsqueeze(0), position_ids=positions)
    return cos[0].contiguous(), sin[0].contiguous()
