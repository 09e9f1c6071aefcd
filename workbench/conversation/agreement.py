"""How far two answers say the same, token by token. Knows texts of tokens, no model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

__all__ = ["Agreement", "agreement"]


@dataclass(frozen=True)
class Agreement:
    """`num_equal_at_start` tokens are the same before the first difference; `share` (0 to 1) of all tokens can be
    matched in order, after the first difference too."""

    num_equal_at_start: int
    share: float
    num_tokens: tuple[int, int]

    @property
    def is_equal(self) -> bool:
        """Whether both are the same."""
        return self.num_tokens == (self.num_equal_at_start, self.num_equal_at_start)

    def line(self) -> str:
        """The figures in words."""
        if self.is_equal:
            return f"the same {self.num_equal_at_start} tokens"
        return f"{self.share:.0%} of the tokens agree, the first {self.num_equal_at_start} without a difference"


def agreement(first: Sequence[str], second: Sequence[str]) -> Agreement:
    """Compare two answers by the texts of their tokens (models may number theirs differently)."""
    equal = len(os.path.commonprefix([list(first), list(second)]))
    share = SequenceMatcher(None, first, second, autojunk=False).ratio()
    return Agreement(equal, share, (len(first), len(second)))
