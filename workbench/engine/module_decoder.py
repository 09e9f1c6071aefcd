"""Any transformers decoder on the GPU's paged attention, through its own forward."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from workbench.engine.attention import AttentionOptions
from workbench.engine.device_step import DeviceStep
from workbench.engine.kernels.paged_chunk import attend_chunks
from workbench.engine.kernels.paged_decode import DecodeWorkspace, attend_decodes
from workbench.engine.kernels.paged_guesses import attend_guesses
from workbench.engine.kernels.tiles import GUESS_QUERIES
from workbench.engine.paged_step import KVPool

__all__ = ["ModuleDecoder"]


class ModuleDecoder:
    """Runs steps over a KV pool; the registered attention function calls back into `_PagedAttention`."""

    def __init__(self, module: torch.nn.Module, pool: KVPool, max_seqs: int) -> None:
        self._module = module
        self._pool = pool
        self._max_seqs = max_seqs
        self._workspaces: dict[tuple[int, int, int, int], DecodeWorkspace] = {}

    def one_layer_of_each_kind(self) -> AbstractContextManager[None]:
        """See Decoder: a model's own forward cannot be cut short."""
        return nullcontext()

    @torch.inference_mode()
    def forward(self, step: DeviceStep) -> torch.Tensor:
        """Logits [kept rows, vocab] of a step; its keys and values are stored in the pool."""
        logits: torch.Tensor = self._module(
            input_ids=step.ids.unsqueeze(0),
            position_ids=step.positions.unsqueeze(0),
            use_cache=False,
            logits_to_keep=0 if step.kept is None else step.kept,
            step=_PagedAttention(step, step.slots.long(), self._pool, self._workspace),
        ).logits
        return logits[0]

    def _workspace(self, heads: int, kv_heads: int, dim: int, rows_at_once: int) -> DecodeWorkspace:
        shape = (heads, kv_heads, dim, rows_at_once)
        if shape not in self._workspaces:
            device = str(next(iter(self._pool.keys.values())).device)
            self._workspaces[shape] = DecodeWorkspace.allocate(
                self._max_seqs, heads, kv_heads, dim, device, rows_at_once=rows_at_once
            )
        return self._workspaces[shape]


@dataclass
class _PagedAttention:
    """See StepAttention."""

    step: DeviceStep
    slots: torch.Tensor
    pool: KVPool
    workspace: Callable[[int, int, int, int], DecodeWorkspace]

    def attend(
        self,
        layer_index: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        options: AttentionOptions,
    ) -> torch.Tensor:
        self.pool.write(layer_index, self.slots, key, value)
        keys, values = self.pool.keys[layer_index], self.pool.values[layer_index]
        query = query.contiguous()
        out = torch.empty_like(query)
        step, split = self.step, self.step.num_decodes
        if split:
            attend_decodes(
                query[:split],
                keys,
                values,
                step.table,
                step.table_starts,
                step.lengths,
                options,
                out[:split],
                self.workspace(query.shape[1], keys.shape[2], query.shape[2], 1),
                step.splits,
            )
        if step.tiles is not None:
            attend_chunks(query, keys, values, step.table, step.tiles, options, out)
        if step.guesses is not None:
            workspace = self.workspace(query.shape[1], keys.shape[2], query.shape[2], GUESS_QUERIES)
            attend_guesses(query, keys, values, step.table, step.guesses, options, out, workspace, step.splits)
        return out
