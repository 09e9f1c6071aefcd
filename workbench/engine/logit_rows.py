"""In which order a step's tokens are computed, and after which of them logits are wanted."""

from __future__ import annotations

import torch

from workbench.engine.sequence import Sequence
from workbench.engine.step_plan import ScheduledSequence

__all__ = ["LogitRows", "in_row_order"]


def in_row_order(items: list[ScheduledSequence]) -> list[ScheduledSequence]:
    """A step's items as their rows are packed: decodes first, the shorter before the longer, then prompt chunks."""
    decodes = sorted((item for item in items if item.num_new_tokens == 1), key=lambda item: item.end)
    return decodes + [item for item in items if item.num_new_tokens > 1]


class LogitRows:
    """Which rows of a step need logits: the last of each sampling sequence and its guesses, all of a scored one.

    `kept` are their numbers in the step, `sampled` the items whose next token is to be chosen, `sampled_rows` where
    their logits are among the kept ones, one row for each of an item's choices.
    """

    def __init__(self, items: list[ScheduledSequence]) -> None:
        self.kept: list[int] = []
        self.sampled: list[ScheduledSequence] = []
        self.sampled_rows: list[int] = []
        self._scored: list[tuple[ScheduledSequence, slice]] = []
        first_row = 0
        for item in items:
            last_row = first_row + item.num_new_tokens - 1
            if item.sequence.wants_prompt_logprobs:
                begin = len(self.kept)
                self.kept.extend(range(first_row, last_row + 1))
                self._scored.append((item, slice(begin, len(self.kept))))
            elif item.samples:
                self.kept.extend(range(last_row + 1 - item.num_choices, last_row + 1))
            if item.samples:
                self.sampled.append(item)
                self.sampled_rows.extend(range(len(self.kept) - item.num_choices, len(self.kept)))
            first_row = last_row + 1

    @property
    def sequences(self) -> list[Sequence]:
        """The sequence that each sampled row's token is chosen for, as it would be there."""
        return [future for item in self.sampled for future in item.futures]

    def pick_sampled(self, logits: torch.Tensor) -> torch.Tensor:
        """Of the kept rows' logits, those of the choices."""
        if len(self.sampled_rows) == len(self.kept):
            return logits
        # An empty list would make a tensor of floats.
        return logits[torch.tensor(self.sampled_rows, dtype=torch.long, device=logits.device)]

    def pick_scored(self, logits: torch.Tensor) -> list[tuple[ScheduledSequence, torch.Tensor]]:
        """Of the kept rows' logits, those of the scored items."""
        return [(item, logits[span]) for item, span in self._scored]
