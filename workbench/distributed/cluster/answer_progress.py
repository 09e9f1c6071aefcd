"""How far a request to replicas elsewhere has come, so that another replica can go on with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from workbench.engine.messages import Chunk, Request, Usage
from workbench.engine.sequence import FinishReason
from workbench.errors import WorkbenchError

__all__ = ["AnswerProgress"]


class AnswerProgress:
    """One request, of whose answers some tokens have come. Times are of this machine: clocks of others differ."""

    def __init__(self, request: Request, clock: Callable[[], float] = time.monotonic) -> None:
        self.request = request
        self.is_aborted = False
        self._clock = clock
        self._sent: list[list[int]] = [list(request.sent_token_ids)] + [[] for _ in range(request.params.n - 1)]
        self._first_token_s: list[float | None] = [None] * request.params.n
        self._open = set(range(request.params.n))

    @property
    def has_started(self) -> bool:
        """Whether anything has come."""
        return any(self._sent) or len(self._open) < self.request.params.n

    @property
    def can_resume(self) -> bool:
        """Whether another replica could go on behind what has come."""
        return self.request.params.n == 1 and not self.request.params.plugins

    @property
    def is_over(self) -> bool:
        """Whether every answer has ended."""
        return not self._open

    def resumed_request(self) -> Request:
        """What to ask a replica for now."""
        if not self._sent[0] or not self.can_resume:
            return self.request
        # What the prompt scored came with the first token.
        params = replace(self.request.params, prompt_logprobs=None)
        return replace(self.request, params=params, sent_token_ids=tuple(self._sent[0]))

    def take(self, chunk: Chunk) -> Chunk:
        """Note a chunk; the same with this machine's times."""
        self._sent[chunk.index].extend(chunk.token_ids)
        if chunk.token_ids and self._first_token_s[chunk.index] is None:
            self._first_token_s[chunk.index] = self._clock()
        if chunk.finish_reason is None:
            return chunk
        self._open.discard(chunk.index)
        return chunk if chunk.usage is None else replace(chunk, usage=self._usage(chunk.index, chunk.usage))

    def last_chunks(self, reason: FinishReason, error: WorkbenchError | None = None) -> list[Chunk]:
        """The ends of the answers that have none yet."""
        chunks = [
            Chunk(self.request.request_id, index, finish_reason=reason, usage=self._usage(index), error=error)
            for index in sorted(self._open)
        ]
        self._open.clear()
        return chunks

    def _usage(self, index: int, told: Usage | None = None) -> Usage:
        return Usage(
            num_prompt_tokens=len(self.request.prompt_token_ids),
            num_generated_tokens=len(self._sent[index]) if told is None else told.num_generated_tokens,
            num_cached_tokens=0 if told is None else told.num_cached_tokens,
            submitted_s=self.request.submitted_s,
            first_token_s=self._first_token_s[index],
            finished_s=self._clock(),
        )
