"""Embeddings of whole texts: one run of the model without its head, beside the KV pool and without using it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from workbench.engine.attention import AttentionOptions, attend_dense
from workbench.models import EmbeddingRecipe, Pooling

__all__ = ["Embedder"]


class Embedder:
    """Makes embeddings as the model's author does. Runs in the engine's thread, between two steps."""

    def __init__(self, module: torch.nn.Module, recipe: EmbeddingRecipe, device: str) -> None:
        self._body: Any = module.base_model
        self._recipe = recipe
        self._device = device

    @torch.inference_mode()
    def embed(self, token_ids: Sequence[int]) -> list[float]:
        """The embedding of one text, as many numbers as the model's hidden size."""
        ids = torch.tensor(token_ids, device=self._device).unsqueeze(0)
        states = (
            self._body(
                input_ids=ids,
                position_ids=torch.arange(len(token_ids), device=self._device).unsqueeze(0),
                use_cache=False,
                step=_WholeText(),
            )
            .last_hidden_state[0]
            .float()
        )
        pooled = states[-1] if self._recipe.pooling is Pooling.LAST else states.mean(dim=0)
        if self._recipe.normalize:
            pooled = torch.nn.functional.normalize(pooled, dim=0)
        numbers: list[float] = pooled.tolist()
        return numbers


@dataclass
class _WholeText:
    """See StepAttention: one text from its beginning, whose keys and values nobody needs again."""

    _masks: dict[int, torch.Tensor] = field(default_factory=dict)

    def attend(
        self,
        layer_index: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        options: AttentionOptions,
    ) -> torch.Tensor:
        group = query.shape[1] // key.shape[1]
        query, key, value = (
            tensor.repeat_interleave(times, dim=1).transpose(0, 1).unsqueeze(0)
            for tensor, times in ((query, 1), (key, group), (value, group))
        )
        mask = self._mask(query.shape[2], options.sliding_window, query.device)
        return attend_dense(query, key, value, mask, options)[0].transpose(0, 1)

    def _mask(self, length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
        """Boolean [length, length]; None where plain causal attention says the same."""
        if window is None or window >= length:
            return None
        if window not in self._masks:
            positions = torch.arange(length, device=device)
            before = positions[:, None] - positions
            self._masks[window] = (before >= 0) & (before < window)
        return self._masks[window]
