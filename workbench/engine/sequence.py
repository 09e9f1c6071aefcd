"""One answer being generated: its tokens, its blocks and how far it is. Pure book-keeping, no torch."""

from __future__ import annotations

import copy
import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workbench.engine.kv_cache import chain_key
from workbench.engine.sampling_params import SamplingParams

if TYPE_CHECKING:
    from workbench.engine.grammar import TokenMatcher
    from workbench.engine.logprobs import TokenLogprobs
    from workbench.engine.row_plugins import RowPlugins

__all__ = ["FinishReason", "Sequence", "SequenceStatus"]


class SequenceStatus(enum.Enum):
    """Where a sequence stands. A preempted one is WAITING again, with its tokens kept and its blocks given back."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class FinishReason(enum.StrEnum):
    """Why a sequence ended, in the words of the OpenAI API where it has them."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


@dataclass(eq=False)
class Sequence:
    """Tokens of prompt and answer, of which the first `num_computed_tokens` have their keys and values in blocks.

    `num_pending_tokens` more are being chosen by steps in flight: they count in `length`, their ids are not known yet.
    `max_total_tokens` bounds prompt plus answer. `leader` is the first of several answers to one prompt: the others
    wait until it has computed the prompt, and then share its blocks. `matcher` stands after the last known token, and
    `plugins` are the samplers that the request names.
    """

    request_id: str
    index: int
    token_ids: list[int]
    num_prompt_tokens: int
    params: SamplingParams
    seed: int
    eos_token_ids: frozenset[int]
    max_total_tokens: int
    leader: Sequence | None = None
    matcher: TokenMatcher | None = None
    plugins: RowPlugins | None = None
    status: SequenceStatus = SequenceStatus.WAITING
    num_computed_tokens: int = 0
    num_pending_tokens: int = 0
    num_cached_tokens: int = 0
    num_findable_blocks: int = 0
    block_ids: list[int] = field(default_factory=list)
    block_keys: list[bytes] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs | None] = field(default_factory=list)

    def ahead(self, token_ids: tuple[int, ...]) -> Sequence:
        """What it would be with these tokens too: to look at, not to run."""
        if not token_ids:
            return self
        later = copy.copy(self)
        later.token_ids = [*self.token_ids, *token_ids]
        return later

    def keys(self, num_blocks: int, block_size: int) -> list[bytes]:
        """Keys of at least its first `num_blocks` full blocks; each is computed once."""
        while len(self.block_keys) < num_blocks:
            start = len(self.block_keys) * block_size
            previous = self.block_keys[-1] if self.block_keys else self.params.cache_salt.encode()
            self.block_keys.append(chain_key(previous, self.token_ids[start : start + block_size]))
        return self.block_keys

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_generated_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def length(self) -> int:
        """Tokens it has, those of steps in flight included."""
        return len(self.token_ids) + self.num_pending_tokens

    @property
    def num_uncomputed_tokens(self) -> int:
        return self.length - self.num_computed_tokens

    @property
    def is_full(self) -> bool:
        """Whether no further token may be chosen, whatever the steps in flight bring."""
        limit = self.params.max_tokens
        return self.length >= self.max_total_tokens or (
            limit is not None and self.length - self.num_prompt_tokens >= limit
        )

    @property
    def num_tokens_to_go(self) -> int:
        """Tokens that may still be chosen, those of steps in flight among them already left out."""
        to_go = self.max_total_tokens - self.length
        limit = self.params.max_tokens
        return to_go if limit is None else min(to_go, limit - self.length + self.num_prompt_tokens)

    @property
    def prompt_is_computed(self) -> bool:
        return self.num_computed_tokens >= self.num_prompt_tokens or self.status is SequenceStatus.FINISHED

    @property
    def generated_token_ids(self) -> list[int]:
        return self.token_ids[self.num_prompt_tokens :]

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Whether prompt positions are still to be scored (once: a preempted sequence is not scored again)."""
        return self.params.prompt_logprobs is not None and len(self.prompt_logprobs) < self.num_prompt_tokens

    @property
    def stop_token_ids(self) -> frozenset[int]:
        own = frozenset(self.params.stop_token_ids)
        return own if self.params.ignore_eos else own | self.eos_token_ids
