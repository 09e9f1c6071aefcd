"""Runs steps on the native decoder: one call a step, whatever mix of prompts and answers it holds."""

from __future__ import annotations

import numpy as np
import torch

from workbench.engine.logit_rows import LogitRows
from workbench.engine.native.decoder import NativeDecoder
from workbench.engine.native.structs import StepStruct
from workbench.engine.runner import LaunchedStep
from workbench.engine.sampler import SampledTokens, sample
from workbench.engine.sequence import Sequence
from workbench.engine.step_plan import StepPlan
from workbench.shell import allocate

__all__ = ["NativeRunner"]


class NativeRunner:
    """See Runner; a step is done when `launch` returns."""

    overlaps = False

    def __init__(self, decoder: NativeDecoder, max_num_seqs: int) -> None:
        self._decoder = decoder
        # Of a mapping of its own: the C heap of the engine's thread would keep what each step takes and gives back.
        self._logits = allocate((max_num_seqs, decoder.vocab_size), torch.float32, "cpu")

    def needs_history(self, sequence: Sequence) -> bool:
        """See Runner: nothing is ever pending here."""
        return False

    def _choose(self, rows: LogitRows, logits: torch.Tensor, likeliest: np.ndarray) -> SampledTokens:
        if not all(_takes_likeliest(item.sequence) for item in rows.sampled):
            return sample(rows.pick_sampled(logits), rows.sequences)
        token_ids = likeliest[rows.sampled_rows].tolist()
        return SampledTokens(token_ids, [None] * len(token_ids), [token_id < 0 for token_id in token_ids])

    def _room_for(self, num_rows: int) -> torch.Tensor:
        """Memory for a step's logits [num_rows, vocab]; more rows than sequences are those of scored prompts."""
        if num_rows <= len(self._logits):
            return self._logits[:num_rows]
        return torch.empty(num_rows, self._decoder.vocab_size)

    def launch(self, plan: StepPlan) -> LaunchedStep:
        """See ModelRunner.launch."""
        items = plan.items
        rows = LogitRows(items)
        logits = self._room_for(len(rows.kept))
        likeliest = np.empty(len(rows.kept), dtype=np.int32)
        ids: list[int] = []
        positions: list[int] = []
        starts: list[int] = []
        tables: list[int] = []
        for item in items:
            ids += item.new_token_ids
            positions += range(item.start, item.end)
            starts += [len(tables)] * item.num_new_tokens
            tables += item.sequence.block_ids
        arrays = [np.asarray(values, dtype=np.int32) for values in (ids, positions, starts, tables, rows.kept)]
        self._decoder.run(
            StepStruct(
                len(ids),
                len(rows.kept),
                len(items) == len(ids),
                0,
                *(array.ctypes.data for array in arrays),
                logits.data_ptr(),
                likeliest.ctypes.data,
            )
        )
        tokens = self._choose(rows, logits, likeliest)
        return LaunchedStep(rows.sampled, lambda: tokens, rows.pick_scored(logits))


def _takes_likeliest(sequence: Sequence) -> bool:
    """Whether the next token is the likeliest one, and nothing else is asked about it."""
    params = sequence.params
    return params.is_greedy and not (params.edits_logits or params.logprobs or sequence.matcher)
