"""One step's inputs as tensors on a GPU, and the host's packing of them, so that a single copy brings them there.

Rows are packed without padding: first decodes, one token each, then prompt chunks. A captured graph reads the same
tensors at every replay, so they keep their places: a header of fixed size, then every row's block ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
import torch

from workbench.engine.kernels.tiles import CHUNK_QUERIES, GUESS_QUERIES
from workbench.engine.sequence import Sequence
from workbench.engine.step_plan import ScheduledSequence
from workbench.engine.uniform import uniform

__all__ = ["DeviceStaging", "DeviceStep", "HostStaging", "StepLayout"]

# Columns of the header, int32 each: the token's id if the host knows it, else the row of the step before that chose
# it; its position; the slot its keys and values go to; how many tokens it sees; where its blocks start.
_FIELDS = ("known_id", "source_row", "position", "slot", "length", "table_start")
_NUM_SAMPLING_FIELDS = 5
_TILE_FIELDS = 4


@dataclass(frozen=True)
class StepLayout:
    """Most rows (tokens) of a step, and of them decodes; most ints in the block table; block size.

    At most `max_choices` tokens are chosen after it. With `all_tiles` decodes are covered by tiles too, of at most
    `tile_rows` rows each.
    """

    max_tokens: int
    max_seqs: int
    max_table: int
    block_size: int
    padding_slot: int
    max_choices: int
    all_tiles: bool = False

    @property
    def tile_rows(self) -> int:
        return GUESS_QUERIES if self.all_tiles else CHUNK_QUERIES

    @property
    def max_tiles(self) -> int:
        return self.max_tokens // self.tile_rows + self.max_seqs

    @property
    def num_header_ints(self) -> int:
        per_row = len(_FIELDS) * self.max_tokens
        return per_row + (_NUM_SAMPLING_FIELDS + 1) * self.max_choices + _TILE_FIELDS * self.max_tiles

    @property
    def num_ints(self) -> int:
        return self.num_header_ints + self.max_table


@dataclass(frozen=True)
class DeviceStep:
    """A step's inputs, int32 unless said otherwise: `ids`, `positions`, `slots` [tokens].

    The first `num_decodes` rows see `lengths` [num_decodes] tokens of the blocks at `table[table_starts]`, cut into
    `splits` parts; `tiles` [n, 4] cover the other rows. `kept` are the rows whose logits are wanted (None: all).
    `hidden` [tokens, hidden] is what the layers before gave, in place of `ids`, which then say nothing.
    With `guesses` [n, 4] these tiles cover all rows, a few of each sequence, whose keys are cut like those of decodes.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    num_decodes: int
    lengths: torch.Tensor
    table: torch.Tensor
    table_starts: torch.Tensor
    tiles: torch.Tensor | None
    kept: torch.Tensor | None
    splits: int
    hidden: torch.Tensor | None = None
    guesses: torch.Tensor | None = None

    @property
    def num_tokens(self) -> int:
        return self.ids.shape[0]


class HostStaging:
    """Packs steps on the host.

    Buffers rotate, so that one can be filled while the copy of another is on its way; the caller sees to it that no
    more steps are in flight than there are buffers.
    """

    def __init__(self, layout: StepLayout, *, pinned: bool, num_buffers: int = 3) -> None:
        self.layout = layout
        self._hosts = [torch.zeros(layout.num_ints, dtype=torch.int32, pin_memory=pinned) for _ in range(num_buffers)]
        self._turn = 0
        self._sections = _sections(layout)

    def pack(
        self,
        items: Many[ScheduledSequence],
        sampled: Many[ScheduledSequence],
        source_rows: Mapping[Sequence, int],
        rows: int,
        kept: Many[int] = (),
    ) -> tuple[torch.Tensor, int]:
        """A step padded to `rows` tokens as ints on the host, and the number of its chunk tiles.

        `source_rows` tells in which row of the step before a sequence's pending token was chosen. `kept` are the
        rows whose logits are wanted, if a graph reads them from here.
        """
        self._turn = (self._turn + 1) % len(self._hosts)
        host = self._hosts[self._turn]
        ints = host.numpy()
        fields = {name: ints[start : start + size] for name, (start, size) in self._sections.items()}
        fields["table"] = ints[self.layout.num_header_ints :]
        used, num_tiles = self._fill_rows(fields, items, source_rows, rows)
        self._fill_sampling(fields["sampling"], sampled)
        fields["tiles"][num_tiles * _TILE_FIELDS :] = 0
        fields["kept"][: len(kept)] = kept
        return host[: self.layout.num_header_ints + used], num_tiles

    def _fill_rows(
        self,
        fields: dict[str, np.ndarray],
        items: Many[ScheduledSequence],
        source_rows: Mapping[Sequence, int],
        rows: int,
    ) -> tuple[int, int]:
        size, at, used, num_tiles = self.layout.block_size, 0, 0, 0
        for item in items:
            sequence, count = item.sequence, item.num_new_tokens
            blocks = sequence.block_ids[: -(-item.end // size)]
            fields["table"][used : used + len(blocks)] = blocks
            if count == 1 and not self.layout.all_tiles:
                fields["position"][at] = item.start
                fields["slot"][at] = blocks[item.start // size] * size + item.start % size
                fields["length"][at], fields["table_start"][at] = item.end, used
                pending = item.start >= len(sequence.token_ids)
                fields["known_id"][at] = -1 if pending else sequence.token_ids[item.start]
                fields["source_row"][at] = source_rows[sequence] if pending else 0
            else:
                span = slice(at, at + count)
                positions = np.arange(item.start, item.end)
                fields["position"][span] = positions
                fields["slot"][span] = np.asarray(blocks)[positions // size] * size + positions % size
                fields["known_id"][span] = item.new_token_ids
                fields["source_row"][span] = 0
                num_tiles = _fill_tiles(fields["tiles"], num_tiles, at, item, used, self.layout.tile_rows)
            at, used = at + count, used + len(blocks)
        padding = slice(at, rows)
        fields["known_id"][padding] = fields["position"][padding] = fields["length"][padding] = 0
        fields["table_start"][padding] = fields["source_row"][padding] = 0
        fields["slot"][padding] = self.layout.padding_slot
        return used, num_tiles

    def _fill_sampling(self, ints: np.ndarray, sampled: Many[ScheduledSequence]) -> None:
        table = ints.view(np.float32).reshape(-1, _NUM_SAMPLING_FIELDS)
        count = 0
        for item in sampled:
            params, sequence = item.sequence.params, item.sequence
            rows = table[count : count + item.num_choices]
            count += item.num_choices
            if params.is_greedy:
                rows[:, 0] = 0.0
                continue
            rows[:, :4] = params.temperature, params.top_k, params.top_p, params.min_p
            for row, position in zip(reversed(rows), range(item.end, 0, -1), strict=False):
                row[4] = uniform(sequence.seed, sequence.index, position)
        table[count:, 0] = 0.0


class DeviceStaging:
    """What captured graphs read: the same tensors at every step."""

    def __init__(self, layout: StepLayout, device: str) -> None:
        self.layout = layout
        self._ints = torch.zeros(layout.num_ints, dtype=torch.int32, device=device)
        self._sections = _sections(layout)

    def place(self, count: int) -> torch.Tensor:
        """Where the `count` ints of a packed step go."""
        return self._ints[:count]

    def section(self, name: str, length: int) -> torch.Tensor:
        """The first `length` ints of a header section."""
        start, _ = self._sections[name]
        return self._ints[start : start + length]

    @property
    def table(self) -> torch.Tensor:
        return self._ints[self.layout.num_header_ints :]


def _sections(layout: StepLayout) -> dict[str, tuple[int, int]]:
    sizes = {name: layout.max_tokens for name in _FIELDS}
    sizes |= {
        "sampling": _NUM_SAMPLING_FIELDS * layout.max_choices,
        "tiles": _TILE_FIELDS * layout.max_tiles,
        "kept": layout.max_choices,
    }
    sections, at = {}, 0
    for name, size in sizes.items():
        sections[name] = (at, size)
        at += size
    return sections


def _fill_tiles(
    tiles: np.ndarray, num_tiles: int, first_row: int, item: ScheduledSequence, table_start: int, most_rows: int
) -> int:
    for offset in range(0, item.num_new_tokens, most_rows):
        rows = min(most_rows, item.num_new_tokens - offset)
        at = num_tiles * _TILE_FIELDS
        tiles[at : at + _TILE_FIELDS] = first_row + offset, rows, table_start, item.start + offset
        num_tiles += 1
    return num_tiles
