"""Turns a step's plan into tensors, runs the model and chooses tokens, at once and in eager mode. Knows no text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from workbench.engine.logit_rows import LogitRows, in_row_order
from workbench.engine.paged_step import ChunkRows, DecodeRows, KVPool, TorchStep
from workbench.engine.pass_shape import pass_shape
from workbench.engine.runner import LaunchedStep
from workbench.engine.sampler import sample
from workbench.engine.sequence import Sequence
from workbench.engine.step_plan import ScheduledSequence, StepPlan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ModelRunner"]

# Rows of one padded decode batch may be padded to at most this multiple of their real length (plus a little).
_PADDING_LIMIT = 1.5
_PADDING_SLACK_TOKENS = 1024


class ModelRunner:
    """Holds the model and its KV pool; a step is done when `launch` returns."""

    overlaps = False

    def __init__(self, module: PreTrainedModel, pool: KVPool, device: str) -> None:
        self.module = module
        self.pool = pool
        self.device = device
        # Where token ids go.
        self.ids_device = device
        self._shape = pass_shape(device, _dtype(module))

    def needs_history(self, sequence: Sequence) -> bool:
        """See Runner: nothing is ever pending here."""
        return False

    def launch(self, plan: StepPlan) -> LaunchedStep:
        """Compute the plan's tokens, store their keys and values, and choose what follows."""
        items = in_row_order(plan.items)
        rows = LogitRows(items)
        logits = self.compute(items, rows.kept)
        tokens = sample(rows.pick_sampled(logits), rows.sequences)
        return LaunchedStep(rows.sampled, lambda: tokens, rows.pick_scored(logits))

    def compute(self, items: list[ScheduledSequence], kept: list[int]) -> torch.Tensor:
        """Run the model on items in row order; logits [kept, vocab] of the rows `kept`, which ascend."""
        kept_rows = np.asarray(kept, dtype=np.int64)
        all_decodes = sum(item.num_new_tokens == 1 for item in items)
        logits: list[torch.Tensor] = []
        first_row = 0
        for part in _parts(items, self._shape.most_rows):
            end_row = first_row + sum(item.num_new_tokens for item in part)
            num_decodes = min(max(all_decodes - first_row, 0), len(part))
            part_rows = kept_rows[(first_row <= kept_rows) & (kept_rows < end_row)] - first_row
            logits.append(self._run(part, num_decodes, part_rows))
            first_row = end_row
        return logits[0] if len(logits) == 1 else torch.cat(logits)

    def _run(self, items: list[ScheduledSequence], num_decodes: int, kept: np.ndarray) -> torch.Tensor:
        """One pass of the model over items, their decodes first; logits [kept, vocab] of the rows `kept`."""
        begun = _begun_blocks(items, self.pool.block_size)
        if begun:
            self.pool.clear(self._tensor(np.asarray(begun, dtype=np.int64)))
        step = TorchStep(
            self.pool,
            self._tensor(np.concatenate([_slots(item, self.pool.block_size) for item in items])),
            self._decode_rows(items[:num_decodes]),
            self._chunk_rows(items[num_decodes:], first_row=num_decodes),
            self._shape.query_rows,
        )
        ids = np.concatenate([item.new_token_ids for item in items])
        positions = np.concatenate([np.arange(item.start, item.end) for item in items])
        return self._forward(
            self._padded_tensor(ids, self.ids_device).unsqueeze(0),
            self._padded_tensor(positions).unsqueeze(0),
            self._padded_tensor(kept),
            step,
        )[: len(kept)]

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, kept: torch.Tensor, step: TorchStep) -> torch.Tensor:
        """Logits [kept, vocab]; `ids` and `positions` are [1, tokens]."""
        logits: torch.Tensor = self.module(
            input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=kept, step=step
        ).logits
        return logits[0]

    def _decode_rows(self, decodes: list[ScheduledSequence]) -> list[DecodeRows]:
        """Padded batches of rows that are sorted by length, split where padding would outgrow the content, or where a
        row's own result would depend on it."""
        batches, start, total = [], 0, 0
        for i, item in enumerate(decodes):
            total += item.end
            differs = self._shape.fixed_positions and self._num_read_blocks(item) != self._num_read_blocks(
                decodes[start]
            )
            if differs or item.end * (i + 1 - start) > _PADDING_LIMIT * total + _PADDING_SLACK_TOKENS:
                batches.append(self._padded(decodes[start:i], start))
                start, total = i, item.end
        if decodes:
            batches.append(self._padded(decodes[start:], start))
        return batches

    def _padded(self, decodes: list[ScheduledSequence], first_row: int) -> DecodeRows:
        num_blocks = self._num_read_blocks(decodes[-1])
        table = np.empty((len(decodes), num_blocks), dtype=np.int64)
        for row, item in zip(table, decodes, strict=True):
            count = _num_blocks(item, self.pool.block_size)
            row[:count] = item.block_ids[:count]
            # Padding repeats a block of the row's own, so that nothing of another request is ever touched.
            row[count:] = row[0]
        lengths = np.asarray([item.end for item in decodes], dtype=np.int64)
        return DecodeRows(first_row, self._tensor(table.reshape(-1)), self._tensor(lengths))

    def _chunk_rows(self, chunks: list[ScheduledSequence], first_row: int) -> list[ChunkRows]:
        rows = []
        for item in chunks:
            # A list here, an array in a rank.
            own = np.asarray(item.block_ids[: _num_blocks(item, self.pool.block_size)], dtype=np.int64)
            blocks = np.resize(own[:1], self._num_read_blocks(item))
            blocks[: len(own)] = own
            rows.append(ChunkRows(first_row, item.num_new_tokens, item.end, self._tensor(blocks)))
            first_row += item.num_new_tokens
        return rows

    def _num_read_blocks(self, item: ScheduledSequence) -> int:
        return self._shape.num_positions(item.end, self.pool.block_size) // self.pool.block_size

    def _padded_tensor(self, array: np.ndarray, device: str | None = None) -> torch.Tensor:
        """One or more numbers, repeated up to the least number of rows."""
        if 0 < len(array) < self._shape.least_rows:
            array = np.resize(array, self._shape.least_rows)
        return self._tensor(array, device)

    def _tensor(self, array: np.ndarray, device: str | None = None) -> torch.Tensor:
        return torch.from_numpy(array).to(device or self.device, non_blocking=True)


def _dtype(module: torch.nn.Module) -> torch.dtype | None:
    """What the model computes in: that of its first floats."""
    return next((parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()), None)


def _parts(items: list[ScheduledSequence], most_rows: int | None) -> Iterator[list[ScheduledSequence]]:
    """The items in their order, cut into lists of at most `most_rows` new tokens; None: one list."""
    part: list[ScheduledSequence] = []
    num_rows = 0
    for item in items:
        start = item.start
        while start < item.end:
            if num_rows == most_rows:
                yield part
                part, num_rows = [], 0
            room = item.end - start if most_rows is None else most_rows - num_rows
            end = min(item.end, start + room)
            part.append(item.part(start, end))
            num_rows += end - start
            start = end
    yield part


def _num_blocks(item: ScheduledSequence, block_size: int) -> int:
    return -(-item.end // block_size)


def _begun_blocks(items: list[ScheduledSequence], block_size: int) -> list[int]:
    """Blocks that a step begins but does not fill. What another request left in their rest is masked, but were it
    infinite or not a number it would come through all the same (0 * NaN)."""
    partial = ((item, item.end // block_size) for item in items if item.end % block_size)
    return [item.block_ids[last] for item, last in partial if last * block_size >= item.start]


def _slots(item: ScheduledSequence, block_size: int) -> np.ndarray:
    """Where each new token's keys and values go: block * block_size + offset."""
    positions = np.arange(item.start, item.end)
    first_block = item.start // block_size
    blocks = np.asarray(item.block_ids[first_block : _num_blocks(item, block_size)], dtype=np.int64)
    return blocks[positions // block_size - first_block] * block_size + positions % block_size
