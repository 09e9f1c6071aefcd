"""What one step computes: which positions of which sequences. Values without torch; the scheduler decides them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from workbench.engine.sequence import Sequence

__all__ = ["ScheduledSequence", "StepPlan"]


@dataclass(frozen=True)
class ScheduledSequence:
    """`num_new_tokens` of a sequence, from position `start` on. `samples` says whether the step reaches the last
    token, so that the next one can be chosen. The last of them may be guesses, `draft_token_ids`: then what follows
    each is chosen too."""

    sequence: Sequence
    start: int
    num_new_tokens: int
    samples: bool
    draft_token_ids: tuple[int, ...] = ()

    @property
    def end(self) -> int:
        return self.start + self.num_new_tokens

    @property
    def new_token_ids(self) -> list[int]:
        """The tokens to compute."""
        if self.draft_token_ids:
            return [*self.sequence.token_ids, *self.draft_token_ids][self.start : self.end]
        return self.sequence.token_ids[self.start : self.end]

    @property
    def num_choices(self) -> int:
        """How many tokens are chosen: one, and one after each guess; none before the last known token."""
        return 1 + len(self.draft_token_ids) if self.samples else 0

    @property
    def futures(self) -> list[Sequence]:
        """The sequence as each of its choices sees it."""
        drafts = self.draft_token_ids
        return [self.sequence.ahead(drafts[:count]) for count in range(self.num_choices)]

    @property
    def block_ids(self) -> list[int]:
        """Blocks of the sequence, in the order of its positions."""
        return self.sequence.block_ids

    def part(self, start: int, end: int) -> ScheduledSequence:
        """The same for fewer of its positions."""
        return ScheduledSequence(self.sequence, start, end - start, self.samples, self.draft_token_ids)

    @property
    def num_prompt_tokens(self) -> int:
        """How many of the new tokens belong to the prompt."""
        return max(0, min(self.end, self.sequence.num_prompt_tokens) - self.start)


@dataclass
class StepPlan:
    """What one step computes: decodes (one new token each, and guesses) first, then prompt chunks, which beside decodes
    have at most `most_beside_decodes` tokens. With `needs_known_tokens` none whose next token is still being chosen,
    except those that are `fed` on the device.

    `was_drafted` says whether guesses were asked for, `was_awaited` whether the step before was waited for because of
    them.
    """

    items: list[ScheduledSequence] = field(default_factory=list)
    num_tokens: int = 0
    num_decodes: int = 0
    num_drafts: int = 0
    max_items: int | None = None
    needs_known_tokens: bool = False
    most_beside_decodes: int = 0
    was_drafted: bool = False
    was_awaited: bool = False
    fed: Collection[Sequence] = ()

    @property
    def is_full(self) -> bool:
        """Whether no further sequence fits."""
        return self.max_items is not None and len(self.items) >= self.max_items

    def may_take(self, sequence: Sequence) -> bool:
        """Whether the sequence's next token may be computed in this step, if there is room."""
        return not self.is_full and (not self.needs_known_tokens or self.knows_or_feeds(sequence))

    def knows_or_feeds(self, sequence: Sequence) -> bool:
        """Whether all tokens of a sequence are known, or the only one that is not is fed on the device."""
        return not sequence.num_pending_tokens or (sequence.num_pending_tokens == 1 and sequence in self.fed)

    def add(self, sequence: Sequence, num_new_tokens: int) -> None:
        start = sequence.num_computed_tokens
        samples = start + num_new_tokens == sequence.length
        self.items.append(ScheduledSequence(sequence, start, num_new_tokens, samples))
        self.num_tokens += num_new_tokens
        self.num_decodes += num_new_tokens == 1

    def add_drafts(self, number: int, drafts: tuple[int, ...]) -> None:
        """Let the decode at that place compute guesses too."""
        item = self.items[number]
        self.items[number] = replace(
            item, num_new_tokens=item.num_new_tokens + len(drafts), draft_token_ids=item.draft_token_ids + drafts
        )
        self.num_tokens += len(drafts)
        self.num_drafts += len(drafts)
