"""Weights of a model whose files cannot be looked at, from its config: exact for the Llama line, close for others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from workbench.models import ModelSpec
from workbench.planner.weight_shape import WeightShape

__all__ = ["EXACT_FAMILIES", "weights_from_config"]

# Families whose every weight is known here; for others the result is within a few percent.
EXACT_FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"})
_NORMS_ON_HEADS = frozenset({"qwen3", "qwen3_moe", "gemma3", "gemma3_text", "olmo2"})
_FOUR_NORMS = frozenset({"gemma2", "gemma3", "gemma3_text"})
# Families whose MLP is two matrices, not three with a gate.
_PLAIN_MLP = frozenset(
    {"gpt2", "gpt_neo", "gpt_neox", "gptj", "gpt_bigcode", "falcon", "opt", "bloom", "phi", "starcoder2", "mpt",
     "nemotron", "codegen"}
)  # fmt: skip
_LEARNED_POSITIONS = frozenset({"gpt2", "gpt_neo", "gpt_bigcode", "opt"})
_BIASED_QKV = frozenset({"qwen2", "qwen2_moe"})


def weights_from_config(spec: ModelSpec, config: Mapping[str, Any]) -> tuple[WeightShape, ...]:
    """Every weight that a model of this shape has, tied ones once, under transformers' names."""
    return tuple(WeightShape(name, shape) for name, shape in _weights(spec, config))


def _weights(spec: ModelSpec, config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden = spec.hidden_size
    yield "model.embed_tokens.weight", (spec.vocab_size, hidden)
    if spec.model_type in _LEARNED_POSITIONS:
        yield "model.positions.weight", (spec.max_context, hidden)
    for index in range(spec.num_layers):
        for name, shape in (*_attention(spec, config), *_mlp(spec, config, index)):
            yield f"model.layers.{index}.{name}", shape
        for number in range(4 if spec.model_type in _FOUR_NORMS else 2):
            yield f"model.layers.{index}.norm_{number}.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    if not spec.tied_embeddings:
        yield "lm_head.weight", (spec.vocab_size, hidden)


def _attention(spec: ModelSpec, config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    query_rows, kv_rows = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    rows = {"q_proj": query_rows, "k_proj": kv_rows, "v_proj": kv_rows}
    for name, count in rows.items():
        yield f"self_attn.{name}.weight", (count, spec.hidden_size)
        if config.get("attention_bias") or config.get("qkv_bias") or spec.model_type in _BIASED_QKV:
            yield f"self_attn.{name}.bias", (count,)
    yield "self_attn.o_proj.weight", (spec.hidden_size, query_rows)
    if config.get("attention_bias"):
        yield "self_attn.o_proj.bias", (spec.hidden_size,)
    if spec.model_type in _NORMS_ON_HEADS:
        yield "self_attn.q_norm.weight", (spec.head_dim,)
        yield "self_attn.k_norm.weight", (spec.head_dim,)


def _mlp(spec: ModelSpec, config: Mapping[str, Any], layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    num_experts = _number(config, "num_local_experts", "num_experts", "n_routed_experts")
    if num_experts and layer >= (config.get("first_k_dense_replace") or 0):
        inner = _number(config, "moe_intermediate_size", "intermediate_size") or 4 * spec.hidden_size
        yield "mlp.gate.weight", (num_experts, spec.hidden_size)
        for name, shape in _gated(spec.hidden_size, inner):
            yield f"mlp.experts.{name}", (num_experts, *shape)
        num_shared = _number(config, "n_shared_experts") or 0
        shared = _number(config, "shared_expert_intermediate_size") or num_shared * inner
        if shared:
            yield from ((f"mlp.shared_expert.{name}", shape) for name, shape in _gated(spec.hidden_size, shared))
        return
    inner = _number(config, "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size") or 4 * spec.hidden_size
    parts = _gated(spec.hidden_size, inner)
    yield from ((f"mlp.{name}", shape) for name, shape in (parts[1:] if spec.model_type in _PLAIN_MLP else parts))


def _gated(hidden: int, inner: int) -> list[tuple[str, tuple[int, int]]]:
    return [
        ("gate_proj.weight", (inner, hidden)),
        ("up_proj.weight", (inner, hidden)),
        ("down_proj.weight", (hidden, inner)),
    ]


def _number(config: Mapping[str, Any], *names: str) -> int | None:
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)
