"""A decoder's weights in modules of transformers' names that cannot compute: for a runner that does so by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from workbench.models.bare_config import BareConfig

__all__ = ["BareDecoder", "BareEmbedding", "BareLinear"]


class BareLinear(nn.Linear):
    """A linear layer whose numbers are not drawn, for which torch would import its compiler."""

    def __init__(self, in_features: int, out_features: int, bias: bool, dtype: torch.dtype) -> None:
        super().__init__(in_features, out_features, bias, device="meta", dtype=dtype)

    def reset_parameters(self) -> None:
        """Nothing."""


class BareEmbedding(nn.Embedding):
    """The same for an embedding."""

    def __init__(self, num_embeddings: int, embedding_dim: int, dtype: torch.dtype) -> None:
        super().__init__(num_embeddings, embedding_dim, device="meta", dtype=dtype)

    def reset_parameters(self) -> None:
        """Nothing."""


class BareDecoder(nn.Module):
    """The parameters that transformers' class has for `config`, under its names, on torch's meta device."""

    _keys_to_ignore_on_load_unexpected = None

    def __init__(self, config: BareConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.config = config
        self.architecture = config.architecture
        self.model = _Body(config, dtype)
        self.lm_head = BareLinear(config.hidden_size, config.vocab_size, False, dtype)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Let the head read the embedding table where the config says so, and both still hold plain weights."""
        table = self.model.embed_tokens
        if self.config.tie_word_embeddings and type(table) is BareEmbedding and type(self.lm_head) is BareLinear:
            self.lm_head.weight = table.weight

    def initialize_weights(self) -> None:
        """Nothing: no buffers, and every parameter comes out of the files."""

    def get_input_embeddings(self) -> nn.Module:
        """The embedding table."""
        return self.model.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        return self.lm_head


class _Body(nn.Module):
    def __init__(self, config: BareConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.embed_tokens = BareEmbedding(config.vocab_size, config.hidden_size, dtype)
        self.layers = nn.ModuleList(_Layer(config, dtype) for _ in range(config.num_hidden_layers))
        self.norm = _Norm(config.hidden_size, dtype)
        self.rotary_emb = _Rotary(config)


class _Layer(nn.Module):
    def __init__(self, config: BareConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.self_attn = _Attention(config, dtype)
        self.mlp = _Mlp(config, dtype)
        self.input_layernorm = _Norm(config.hidden_size, dtype)
        self.post_attention_layernorm = _Norm(config.hidden_size, dtype)


class _Attention(nn.Module):
    def __init__(self, config: BareConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.scaling = config.head_dim**-0.5
        hidden, bias = config.hidden_size, config.attention_bias
        query_size = config.num_attention_heads * config.head_dim
        key_size = config.num_key_value_heads * config.head_dim
        self.q_proj = BareLinear(hidden, query_size, bias, dtype)
        self.k_proj = BareLinear(hidden, key_size, bias, dtype)
        self.v_proj = BareLinear(hidden, key_size, bias, dtype)
        self.o_proj = BareLinear(query_size, hidden, bias, dtype)
        if config.model_type == "qwen3":
            self.q_norm = _Norm(config.head_dim, dtype)
            self.k_norm = _Norm(config.head_dim, dtype)


class _Mlp(nn.Module):
    def __init__(self, config: BareConfig, dtype: torch.dtype) -> None:
        super().__init__()
        hidden, inter, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = BareLinear(hidden, inter, bias, dtype)
        self.up_proj = BareLinear(hidden, inter, bias, dtype)
        self.down_proj = BareLinear(inter, hidden, bias, dtype)


class _Norm(nn.Module):
    def __init__(self, size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size, device="meta", dtype=dtype))


class _Rotary:
    """Called as transformers' rotary embedding is: cosines and sines [1, positions, head_dim] in float32."""

    def __init__(self, config: BareConfig) -> None:
        self._config = config

    def __call__(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = position_ids[..., None].float() * self._frequencies()
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()

    def _frequencies(self) -> torch.Tensor:
        """[head_dim / 2]; "linear" and "llama3" stretch them for contexts beyond the first training's."""
        rope, dim = self._config.rope_parameters, self._config.head_dim
        frequencies: torch.Tensor = 1.0 / (rope["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float) / dim))
        if rope["rope_type"] == "linear":
            factor: float = rope["factor"]
            return frequencies / factor
        return _stretched(frequencies, rope) if rope["rope_type"] == "llama3" else frequencies


def _stretched(frequencies: torch.Tensor, rope: Mapping[str, Any]) -> torch.Tensor:
    """Long waves by `factor`, short ones not at all, those between in proportion (Llama 3.1's model card)."""
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    context = rope["original_max_position_embeddings"]
    waves = 2 * math.pi / frequencies
    share = (context / waves - low) / (high - low)
    between = (1 - share) * frequencies / factor + share * frequencies
    stretched = torch.where(waves > context / low, frequencies / factor, frequencies)
    is_between = ~(waves < context / high) & ~(waves > context / low)
    return torch.where(is_between, between, stretched)
