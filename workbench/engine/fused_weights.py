"""The weights of a Llama-like transformers model as the fused decoder reads them: q, k, v and gate, up joined, and in
low bits if asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from workbench.engine.attention import AttentionOptions
from workbench.engine.low_bit_method import LowBitEmbedding, LowBitLinear
from workbench.engine.low_bit_weight import LowBitKind, LowBitWeight
from workbench.quantize.quant_type import ENGINE_FAMILIES

__all__ = ["FusedLayer", "FusedWeights", "Weight", "why_not"]

Weight = torch.Tensor | LowBitWeight

_ROPE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})


def why_not(module: torch.nn.Module) -> str | None:
    """What keeps a transformers model from the fused path, in words; None if nothing does."""
    # Of transformers' classes: known by their family, declared by none.
    config: Any = module.config
    if config.model_type not in ENGINE_FAMILIES:
        return f"{config.model_type} is not one of {', '.join(sorted(ENGINE_FAMILIES))}"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}, not silu"
    rope_type = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope_type not in _ROPE_TYPES:
        return f"its rotary embedding is of type {rope_type}, which depends on the length"
    layer = next(iter(_held_layers(module).values()))
    if layer.mlp.gate_proj.bias is not None or layer.self_attn.o_proj.bias is not None:
        return "its output or feed-forward layers have biases"
    known = (torch.nn.Linear, LowBitLinear)
    if any(type(linear) not in known for linear in (layer.self_attn.q_proj, layer.mlp.gate_proj)):
        return f"its weights are held by {type(layer.mlp.gate_proj).__name__}"
    return None


@dataclass(frozen=True)
class FusedLayer:
    """One decoder layer. Projections are [out, in]; `qkv` and `gate_up` are joined along their rows."""

    qkv: Weight
    qkv_bias: torch.Tensor | None
    output: Weight
    gate_up: Weight
    down: Weight
    input_norm: torch.Tensor
    output_norm: torch.Tensor
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None
    eps: float
    attention: AttentionOptions


@dataclass(frozen=True)
class FusedWeights:
    """A model's, or those of its layers from `first_layer` on: `embedding` is there where the first one is, `norm` and
    `head` where the last one is. Norms are always in the model's own precision; so are embedding and head with FP8,
    while INT8 and INT4 hold both in INT8."""

    embedding: Weight | None
    layers: tuple[FusedLayer, ...]
    norm: torch.Tensor | None
    eps: float
    head: Weight | None
    first_layer: int = 0

    @classmethod
    def take(cls, module: torch.nn.Module, kind: LowBitKind | None = None) -> FusedWeights:
        """Take over a model's weights, layer by layer, so that nothing is held twice.

        Without `kind` the model's own linears become views of the joined ones, and it stays usable; with it, and where
        they are in low bits already, they are left empty.
        """
        model: Any = module.model
        lm_head: Any = module.lm_head
        held = _held_layers(module)
        layers = tuple(_take_layer(layer, module.config, kind) for layer in held.values())
        # Where another process has them, something without weights stands in their place.
        embedding: Weight | None = getattr(model.embed_tokens, "weight", None)
        head: Weight | None = getattr(lm_head, "weight", None)
        norm: torch.Tensor | None = getattr(model.norm, "weight", None)
        eps: float = getattr(model.norm, "variance_epsilon", layers[0].eps)
        if isinstance(model.embed_tokens, LowBitEmbedding):
            embedding, head = _taken_vocabulary(model.embed_tokens, lm_head)
        elif kind in (LowBitKind.INT8, LowBitKind.INT4):
            is_tied = head is embedding
            head = None if head is None else _packed_vocabulary(lm_head)
            embedding = head if is_tied or embedding is None else _packed_vocabulary(model.embed_tokens)
        return cls(embedding, layers, norm, eps, head, next(iter(held)))

    @property
    def num_bytes(self) -> int:
        """Bytes of all weights; a head that is the embedding counts once."""
        return sum({id(weight): _num_bytes(weight) for weight in self._weights()}.values())

    def low_bit_weights(self) -> list[LowBitWeight]:
        """Those that are multiplied, and not in the model's own precision."""
        return [weight for weight in self._multiplied() if isinstance(weight, LowBitWeight)]

    def _weights(self) -> Iterator[Weight]:
        yield from (weight for weight in (self.embedding, self.norm) if weight is not None)
        yield from self._multiplied()

    def _multiplied(self) -> Iterator[Weight]:
        if self.head is not None:
            yield self.head
        for layer in self.layers:
            values = (getattr(layer, name) for name in FusedLayer.__dataclass_fields__)
            yield from (value for value in values if isinstance(value, torch.Tensor | LowBitWeight))


def _held_layers(module: Any) -> dict[int, Any]:
    """The decoder layers that this process has, by their place in the model."""
    return {index: layer for index, layer in enumerate(module.model.layers) if hasattr(layer, "self_attn")}


def _take_layer(layer: Any, config: Any, kind: LowBitKind | None) -> FusedLayer:
    attention, mlp = layer.self_attn, layer.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    biases = [p.bias for p in projections]
    window = getattr(attention, "sliding_window", None)
    if config.model_type == "mistral":
        window = config.sliding_window
    return FusedLayer(
        qkv=_join(projections, kind),
        qkv_bias=None if biases[0] is None else torch.cat([b.detach() for b in biases]),
        output=_join((attention.o_proj,), kind),
        gate_up=_join((mlp.gate_proj, mlp.up_proj), kind),
        down=_join((mlp.down_proj,), kind),
        input_norm=layer.input_layernorm.weight,
        output_norm=layer.post_attention_layernorm.weight,
        query_norm=attention.q_norm.weight if hasattr(attention, "q_norm") else None,
        key_norm=attention.k_norm.weight if hasattr(attention, "k_norm") else None,
        eps=layer.input_layernorm.variance_epsilon,
        attention=AttentionOptions(scale=attention.scaling, sliding_window=window),
    )


def _join(linears: tuple[torch.nn.Linear, ...], kind: LowBitKind | None) -> Weight:
    """One weight for linears of the same input."""
    if isinstance(linears[0], LowBitLinear):
        return _taken([linear for linear in linears if isinstance(linear, LowBitLinear)])
    weights = [linear.weight.detach() for linear in linears]
    joined = weights[0] if len(weights) == 1 else torch.cat(weights)
    if kind is not None:
        packed = LowBitWeight.pack(joined, kind)
        for linear in linears:
            _leave_empty(linear)
        return packed
    at = 0
    for linear in linears:
        rows = linear.weight.shape[0]
        linear.weight.data = joined[at : at + rows]
        at += rows
    return joined


def _packed_vocabulary(module: Any) -> LowBitWeight:
    """Of an embedding or a head, which is left empty."""
    packed = LowBitWeight.pack(module.weight.detach(), LowBitKind.INT8)
    _leave_empty(module)
    return packed


def _taken(linears: list[LowBitLinear]) -> LowBitWeight:
    """Of linears in low bits, which are left empty."""
    joined = LowBitWeight.joined([linear.low_bit for linear in linears])
    for linear in linears:
        linear.leave_empty()
    return joined


def _taken_vocabulary(table: LowBitEmbedding, head: LowBitLinear) -> tuple[LowBitWeight, LowBitWeight]:
    """Embedding and head, one and the same where they share their memory; both modules are left empty."""
    embedding, is_tied = table.low_bit, table.key == head.key
    table.leave_empty()
    taken = _taken([head])
    return (taken if is_tied else embedding), taken


def _leave_empty(module: Any) -> None:
    module.weight.data = module.weight.new_empty(0)


def _num_bytes(weight: Weight) -> int:
    return weight.num_bytes if isinstance(weight, LowBitWeight) else weight.nbytes
