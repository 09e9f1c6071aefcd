"""Attention over the paged KV pool, behind the one function that is registered with transformers.

Any transformers decoder that looks its attention up by name runs on it. What a step's rows may see is decided by the
step object that travels through the model's keywords; the function itself knows no scheduler and no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from workbench.errors import ModelFormatError

__all__ = ["ATTENTION_NAME", "AttentionOptions", "LayerShape", "ShapeProbe", "StepAttention", "register_attention"]

ATTENTION_NAME = "workbench_paged"


@dataclass(frozen=True)
class AttentionOptions:
    """What a layer asks of attention beyond queries, keys and values.

    `scale` multiplies the scores; a row sees itself and `sliding_window - 1` tokens before it (None: all);
    `softcap` bounds scores by tanh (Gemma 2); `sinks` are one extra score per head, shape [heads] (GPT-OSS).
    """

    scale: float
    sliding_window: int | None = None
    softcap: float | None = None
    sinks: torch.Tensor | None = None


class StepAttention(Protocol):
    """Stores a step's new keys and values and attends to all that came before."""

    def attend(
        self,
        layer_index: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        options: AttentionOptions,
    ) -> torch.Tensor:
        """`query` [tokens, heads, dim], `key` and `value` [tokens, kv_heads, dim] -> [tokens, heads, value_dim]."""
        ...


@dataclass(frozen=True)
class LayerShape:
    """Size of one layer's keys and values per token."""

    num_kv_heads: int
    key_dim: int
    value_dim: int

    @property
    def elements_per_token(self) -> int:
        return self.num_kv_heads * (self.key_dim + self.value_dim)


class ShapeProbe:
    """Stands in for a step to learn each layer's key and value shapes from one run of the model."""

    def __init__(self) -> None:
        self.layers: dict[int, LayerShape] = {}

    def attend(
        self,
        layer_index: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        options: AttentionOptions,
    ) -> torch.Tensor:
        if layer_index in self.layers:
            raise ModelFormatError(
                f"layer {layer_index} attends more than once per token, which the paged cache cannot hold"
            )
        self.layers[layer_index] = LayerShape(key.shape[1], key.shape[2], value.shape[2])
        return query.new_zeros(query.shape[0], query.shape[1], value.shape[2])


def register_attention() -> str:
    """Make the function known to transformers and return its name. Calling it again changes nothing."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION_NAME, _paged_attention)
    return ATTENTION_NAME


def _paged_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    step: StepAttention | None = None,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """transformers' calling convention: query [1, heads, tokens, dim] -> ([1, tokens, heads, value_dim], None).

    Raises ModelFormatError rather than leave out something that the architecture asks for.
    """
    if step is None or attention_mask is not None:
        raise ModelFormatError(
            f"{type(module).__name__} does not hand its keywords through to attention, "
            "so this architecture cannot run on the paged cache"
        )
    if not getattr(module, "is_causal", True):
        raise ModelFormatError(f"{type(module).__name__} looks at later tokens too: only causal decoders can run here")
    for name, other in others.items():
        # Such as a bias on the scores. Numbers and integer tensors (positions) say nothing that changes the result.
        if isinstance(other, torch.Tensor) and other.is_floating_point():
            raise ModelFormatError(f"{type(module).__name__} gives its attention {name}, which is not supported here")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    # Every attention class of transformers has it; none declares it.
    layer_index: Any = module.layer_idx
    out = step.attend(
        layer_index,
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        AttentionOptions(scale, sliding_window, softcap, s_aux),
    )
    return out.unsqueeze(0), None


def attend_dense(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, options: AttentionOptions
) -> torch.Tensor:
    """Attention of [batch, heads, q, dim] over [batch, heads, kv, dim] under a boolean mask; None means causal.

    Scores are kept in float32 where the softcap or the sinks keep torch's fused kernel from being used.
    """
    if options.softcap is None and options.sinks is None:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=options.scale
        )
    scores = torch.matmul(query, key.transpose(-1, -2)).float() * options.scale
    if options.softcap is not None:
        scores = torch.tanh(scores / options.softcap) * options.softcap
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    scores = scores.masked_fill(~mask, float("-inf"))
    if options.sinks is not None:
        sinks = options.sinks.float().reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1)
        scores = torch.cat((scores, sinks), dim=-1)
    weights = torch.softmax(scores, dim=-1)[..., : key.shape[2]]
    return torch.matmul(weights.to(value.dtype), value)
