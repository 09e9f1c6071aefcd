"""A step's plan as ints for a GPU, made on the host: which tensors it goes to, and whose tokens it chooses."""

from __future__ import annotations

from bisect import bisect_left
from collections import ChainMap, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

import torch

from workbench.engine.config import EngineLimits
from workbench.engine.device_step import HostStaging, StepLayout
from workbench.engine.logit_rows import LogitRows
from workbench.engine.sequence import Sequence
from workbench.engine.step_plan import ScheduledSequence, StepPlan

__all__ = ["PackedStep", "StepKind", "StepPacker", "StepShapes", "batch_buckets", "needs_history"]

# Lengths of a prompt, computed alone, that get a graph: longer ones keep the device busy while they are launched.
_PROMPT_BUCKETS = (16, 32, 64, 128, 192, 256, 384, 512)
# Rows of a step with guesses that get a graph, as far as limits allow so many.
_GUESS_BUCKETS = (8, 16, 32, 64)


class StepKind(Enum):
    """DECODES, decodes with GUESSES, and a PROMPT alone are padded to a size that has a graph; MIXED is all else."""

    DECODES = "decodes"
    GUESSES = "guesses"
    PROMPT = "prompt"
    MIXED = "mixed"


@dataclass(frozen=True)
class StepShapes:
    """The sizes that steps come in under an engine's limits: those with a graph, and the layout of each kind."""

    layouts: dict[StepKind, StepLayout]
    batch_sizes: list[int]
    prompt_sizes: list[int]
    guess_sizes: list[int]

    @classmethod
    def of(cls, limits: EngineLimits) -> StepShapes:
        prompt_sizes = [size for size in _PROMPT_BUCKETS if size <= limits.max_num_batched_tokens]
        guess_sizes = _guess_sizes(limits)
        most_tokens = {
            StepKind.DECODES: limits.max_num_seqs,
            StepKind.PROMPT: max(prompt_sizes, default=1),
            StepKind.MIXED: max(limits.max_num_batched_tokens, limits.max_num_seqs),
        }
        most_seqs = dict.fromkeys(most_tokens, limits.max_num_seqs)
        if guess_sizes:
            most_tokens[StepKind.GUESSES] = max(guess_sizes)
            most_seqs[StepKind.GUESSES] = min(limits.max_num_seqs, max(guess_sizes))
        # Rows that only fill up a size write to the block after the last that is handed out.
        padding_slot = limits.num_blocks * limits.block_size
        layouts = {
            kind: StepLayout(
                max_tokens=count,
                max_seqs=most_seqs[kind],
                max_table=most_seqs[kind] * -(-limits.max_context // limits.block_size),
                block_size=limits.block_size,
                padding_slot=padding_slot,
                # Prompts that are computed beside guesses are followed by a token each.
                max_choices=limits.max_num_seqs + max(guess_sizes, default=0),
                all_tiles=kind is StepKind.GUESSES,
            )
            for kind, count in most_tokens.items()
        }
        return cls(layouts, batch_buckets(limits.max_num_seqs), prompt_sizes, guess_sizes)

    @property
    def longest_prompt(self) -> int:
        """Most tokens of a prompt that has a graph; 0 where none has."""
        return max(self.prompt_sizes, default=0)

    @property
    def captured_sizes(self) -> dict[StepKind, list[int]]:
        """Sizes with a graph, ascending; the kind with the largest first."""
        guesses = {StepKind.GUESSES: self.guess_sizes} if self.guess_sizes else {}
        return {StepKind.PROMPT: self.prompt_sizes, **guesses, StepKind.DECODES: self.batch_sizes}

    @property
    def max_choices(self) -> int:
        """Most tokens that are chosen after a step."""
        return self.layouts[StepKind.MIXED].max_choices

    def num_guess_tiles(self, size: int) -> int:
        """Most tiles of a step of `size` rows with guesses."""
        layout = self.layouts[StepKind.GUESSES]
        return min(size, size // layout.tile_rows + layout.max_seqs)


@dataclass(frozen=True)
class PackedStep:
    """`ints` are on the host and reused: copy them before two more steps are packed.

    `size` counts rows with their padding, `num_rows` those whose logits are wanted. For MIXED they are the rows
    `kept`, of which the first `num_decodes` of the step are decodes and `num_tiles` tiles cover the others;
    `sampled_rows` are the places among the kept ones where a token is chosen (None: all), `num_sampled` how many.
    Several steps' tokens may be kept, each step's in a slot of its own: those of this one go to `slot`, and it is fed
    from `fed_slots`.
    """

    kind: StepKind
    ints: torch.Tensor
    size: int
    num_rows: int
    num_sampled: int
    num_decodes: int = 0
    num_tiles: int = 0
    kept: tuple[int, ...] = ()
    sampled_rows: tuple[int, ...] | None = None
    slot: int = 0
    fed_slots: tuple[int, ...] = ()


class StepPacker:
    """Packs plans one after the other: a token that a step before chose is named by its row there, where the tokens of
    the last `num_slots` steps are kept one step after the other.

    `pinned` memory can be copied to a GPU while the host goes on.
    """

    def __init__(self, shapes: StepShapes, *, pinned: bool, num_slots: int = 1) -> None:
        self._shapes = shapes
        self._stagings = {kind: HostStaging(layout, pinned=pinned) for kind, layout in shapes.layouts.items()}
        self._slot_size = shapes.layouts[StepKind.MIXED].max_seqs
        self._num_slots, self._slot = num_slots, 0
        # The newest first; of a sequence in several steps only its newest token is pending.
        self._rows_by_step: deque[dict[Sequence, int]] = deque([{} for _ in range(num_slots)], maxlen=num_slots)

    def pack(self, plan: StepPlan) -> tuple[PackedStep, LogitRows]:
        """The step, and which rows of it matter to whom."""
        decodes = [item for item in plan.items if item.num_new_tokens == 1]
        chunks = [item for item in plan.items if item.num_new_tokens > 1]
        items = decodes + chunks
        rows = LogitRows(items)
        # With a single slot, without a detour for every row.
        source_rows: Mapping[Sequence, int] = self._rows_by_step[0]
        if self._num_slots > 1:
            source_rows = ChainMap(*self._rows_by_step)
        # A piece of a prompt may be one token too, and then nothing may be chosen after it.
        if not chunks and len(rows.sampled) == len(items):
            step = self._pack_decodes(items, source_rows)
        elif self._are_guesses(plan, rows):
            step = self._pack_guesses(items)
        elif self._is_short_prompt(items, rows):
            step = self._pack_prompt(items[0], rows.kept, source_rows)
        else:
            step = self._pack_mixed(items, len(decodes), rows, source_rows)
        fed_slots: set[int] = set()
        if self._num_slots > 1:
            pending = (item.sequence for item in items if item.start >= item.sequence.num_tokens)
            fed_slots = {source_rows[sequence] // self._slot_size for sequence in pending}
        self._slot = (self._slot + 1) % self._num_slots
        first_row = self._slot * self._slot_size
        self._rows_by_step.appendleft({item.sequence: first_row + row for row, item in enumerate(rows.sampled)})
        return replace(step, slot=self._slot, fed_slots=tuple(sorted(fed_slots))), rows

    def _is_short_prompt(self, items: list[ScheduledSequence], rows: LogitRows) -> bool:
        if len(items) != 1 or not rows.sampled or len(rows.kept) != 1:
            return False
        return items[0].num_new_tokens <= self._shapes.longest_prompt

    def _are_guesses(self, plan: StepPlan, rows: LogitRows) -> bool:
        """Whether after every row of the step a token is chosen, and a graph has so many."""
        largest = max(self._shapes.guess_sizes, default=0)
        return plan.num_drafts > 0 and len(rows.sampled_rows) == len(rows.kept) == plan.num_tokens <= largest

    def _pack_guesses(self, items: list[ScheduledSequence]) -> PackedStep:
        num_rows = sum(item.num_new_tokens for item in items)
        sizes = self._shapes.guess_sizes
        size = sizes[bisect_left(sizes, num_rows)]
        ints, num_tiles = self._stagings[StepKind.GUESSES].pack(items, items, {}, size)
        return PackedStep(StepKind.GUESSES, ints, size, num_rows, num_rows, num_tiles=num_tiles)

    def _pack_decodes(self, items: list[ScheduledSequence], source_rows: Mapping[Sequence, int]) -> PackedStep:
        sizes = self._shapes.batch_sizes
        size = sizes[bisect_left(sizes, len(items))]
        ints, _ = self._stagings[StepKind.DECODES].pack(items, items, source_rows, size)
        return PackedStep(StepKind.DECODES, ints, size, len(items), len(items))

    def _pack_prompt(self, item: ScheduledSequence, kept: list[int], source_rows: Mapping[Sequence, int]) -> PackedStep:
        sizes = self._shapes.prompt_sizes
        size = sizes[bisect_left(sizes, item.num_new_tokens)]
        ints, _ = self._stagings[StepKind.PROMPT].pack([item], [item], source_rows, size, kept)
        return PackedStep(StepKind.PROMPT, ints, size, 1, 1)

    def _pack_mixed(
        self, items: list[ScheduledSequence], num_decodes: int, rows: LogitRows, source_rows: Mapping[Sequence, int]
    ) -> PackedStep:
        size = sum(item.num_new_tokens for item in items)
        ints, num_tiles = self._stagings[StepKind.MIXED].pack(items, rows.sampled, source_rows, size)
        every_row = len(rows.sampled_rows) == len(rows.kept)
        return PackedStep(
            StepKind.MIXED,
            ints,
            size,
            len(rows.kept),
            len(rows.sampled_rows),
            num_decodes,
            num_tiles,
            tuple(rows.kept),
            None if every_row else tuple(rows.sampled_rows),
        )


def batch_buckets(max_seqs: int) -> list[int]:
    """Batch sizes that get a graph: every power of two to 8, then steps of 8, beyond 256 of 32."""
    sizes = [1, 2, 4, *range(8, 257, 8), *range(288, max_seqs + 1, 32)]
    kept = [size for size in sizes if size < max_seqs]
    return [*kept, max_seqs]


def _guess_sizes(limits: EngineLimits) -> list[int]:
    """Those up to the first that holds all rows that there can be; none where nothing is guessed."""
    if not limits.draft_tokens:
        return []
    most_rows = min(limits.draft_rows, limits.max_num_seqs * (1 + limits.draft_tokens))
    return [*(size for size in _GUESS_BUCKETS if size < most_rows), most_rows]


def needs_history(sequence: Sequence) -> bool:
    """Whether the next token can only be chosen on the host, from all tokens before it."""
    params = sequence.params
    return bool(params.edits_logits or params.logprobs or params.typical_p < 1.0 or params.structure is not None)
