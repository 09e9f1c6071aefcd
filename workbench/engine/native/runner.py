"""Runs steps on the native decoder: one call a step, whatever mix of prompts and answers it holds."""

from __future__ import annotations

import numpy as np
import torch

from workbench.engine.native.decoder import NativeDecoder
from workbench.engine.native.structs import StepStruct
from workbench.engine.runner import LaunchedStep, LogitRows
from workbench.engine.sampler import sample
from workbench.engine.scheduler import StepPlan
from workbench.engine.sequence import Sequence

__all__ = ["NativeRunner"]


class NativeRunner:
    """See Runner; a step is done when `launch` returns."""

    overlaps = False

    def __init__(self, decoder: NativeDecoder, max_rows: int) -> None:
        self._decoder = decoder
        self._max_rows = max_rows

    def needs_history(self, sequence: Sequence) -> bool:
        """See Runner: nothing is ever pending here."""
        return False

    def launch(self, plan: StepPlan) -> LaunchedStep:
        """See ModelRunner.launch."""
        items = plan.items
        rows = LogitRows(items)
        logits = torch.empty(len(rows.kept), self._decoder.vocab_size)
        ids: list[int] = []
        positions: list[int] = []
        starts: list[int] = []
        tables: list[int] = []
        for item in items:
            ids += item.sequence.token_ids[item.start : item.end]
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
            )
        )
        tokens = sample(rows.pick_sampled(logits), [item.sequence for item in rows.sampled])
        return LaunchedStep(rows.sampled, lambda: tokens, rows.pick_scored(logits))
