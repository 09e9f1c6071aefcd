"""A request as its caller sees it: pieces as they come, the whole at the end, and a way to stop it."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field

from workbench.engine.answer_filters import AnswerFilters
from workbench.engine.logprobs import TokenLogprobs
from workbench.engine.messages import Chunk, Usage
from workbench.engine.sequence import FinishReason
from workbench.errors import WorkbenchError
from workbench.mailbox import Mailbox
from workbench.twin import HasTwin, Twin

__all__ = ["Completion", "Generation", "Timings"]


@dataclass(frozen=True)
class Timings:
    """How fast an answer came. Times in seconds; rates in tokens per second, None where too few tokens tell.

    `ttft_s` is the time to the first token, queueing included. `num_cached_tokens` of the prompt were computed before.
    """

    num_prompt_tokens: int
    num_generated_tokens: int
    ttft_s: float | None
    total_s: float
    decode_tokens_per_s: float | None
    num_cached_tokens: int = 0

    @classmethod
    def from_usage(cls, usage: Usage) -> Timings:
        ttft_s = rate = None
        if usage.first_token_s is not None:
            ttft_s = usage.first_token_s - usage.submitted_s
            decode_s = usage.finished_s - usage.first_token_s
            if usage.num_generated_tokens > 1 and decode_s > 0:
                rate = (usage.num_generated_tokens - 1) / decode_s
        return cls(
            num_prompt_tokens=usage.num_prompt_tokens,
            num_generated_tokens=usage.num_generated_tokens,
            ttft_s=ttft_s,
            total_s=usage.finished_s - usage.submitted_s,
            decode_tokens_per_s=rate,
            num_cached_tokens=usage.num_cached_tokens,
        )


@dataclass(frozen=True, repr=False)
class Completion(HasTwin):
    """A finished answer. `text` is the completion only, never the prompt."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    stop_reason: str | int | None
    num_prompt_tokens: int
    num_cached_tokens: int
    timings: Timings
    logprobs: tuple[TokenLogprobs, ...]
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None
    seed: int
    index: int = 0

    def twin(self) -> Twin:
        """The answer, why it ended, and its length: what is the same in every run of a request that is."""
        stop = f" ({self.stop_reason!r})" if self.stop_reason is not None else ""
        tokens = f"{self.num_prompt_tokens} of the prompt, {len(self.token_ids)} generated"
        rows = (("text", self.text), ("ended by", f"{self.finish_reason.value}{stop}"), ("tokens", tokens))
        return Twin("Completion", rows)


@dataclass
class _Partial:
    """What has come of one answer."""

    text: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    last: Chunk | None = None

    def copy(self) -> _Partial:
        """The same, without its end."""
        return _Partial(list(self.text), list(self.token_ids), list(self.logprobs), self.prompt_logprobs)

    def take(self, chunk: Chunk) -> None:
        self.text.append(chunk.text)
        self.token_ids.extend(chunk.token_ids)
        self.logprobs.extend(chunk.logprobs)
        self.prompt_logprobs = chunk.prompt_logprobs or self.prompt_logprobs
        if chunk.finish_reason is not None:
            self.last = chunk


class Generation(HasTwin):
    """A running request.

    Iterating gives Chunks as they come, synchronously or with `async for`; leaving the loop early aborts the request.
    `result()` waits for the end. What has come so far is in `text`, also after an abort. `owner` is kept alive as
    long as this is, so that an engine cannot be collected under a running request. `resumed` is the generation of an
    engine that has ended, whose answer this one goes on with.
    """

    def __init__(
        self,
        request_id: str,
        n: int,
        seed: int,
        mailbox: Mailbox[Chunk],
        abort: Callable[[str], None],
        filters: list[AnswerFilters] | None = None,
        resumed: Generation | None = None,
    ) -> None:
        self.request_id = request_id
        self.seed = seed
        self.owner: object = None
        self._answers: list[_Partial] = (
            [_Partial() for _ in range(n)] if resumed is None else [resumed._answers[0].copy()]
        )
        self._mailbox = mailbox
        self._abort = abort
        # Stream filters of each answer; None for the requests that name none.
        self._filters = filters
        self._error: WorkbenchError | None = None

    @property
    def is_finished(self) -> bool:
        return all(answer.last is not None for answer in self._answers)

    @property
    def text(self) -> str:
        """Text of the first answer so far."""
        return "".join(self._answers[0].text)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Tokens of the first answer so far."""
        return tuple(self._answers[0].token_ids)

    @property
    def timings(self) -> Timings | None:
        """Times of the first answer, once it has ended."""
        last = self._answers[0].last
        return Timings.from_usage(last.usage) if last and last.usage else None

    def twin(self) -> Twin:
        """What its caller has taken of it so far."""
        return Twin(f"Generation ({'finished' if self.is_finished else 'running'})", (("text so far", self.text),))

    def abort(self) -> None:
        """Ask the engine to stop. The last chunk then says so; a finished request is left as it is."""
        if not self.is_finished:
            self._abort(self.request_id)

    def __iter__(self) -> Iterator[Chunk]:
        try:
            while not self.is_finished:
                yield self._take(self._mailbox.get())
        finally:
            self.abort()

    async def __aiter__(self) -> AsyncGenerator[Chunk]:
        try:
            while not self.is_finished:
                yield self._take(await self._mailbox.get_async())
        finally:
            self.abort()

    def result(self, timeout_s: float | None = None) -> Completion:
        """Wait for the first answer's end. TimeoutError leaves the request running; anything else aborts it."""
        return self.results(timeout_s)[0]

    def results(self, timeout_s: float | None = None) -> list[Completion]:
        """Wait for all `n` answers. `timeout_s` bounds the wait for each piece of output."""
        try:
            while not self.is_finished:
                self._take(self._mailbox.get(timeout_s))
        except TimeoutError:
            raise
        except BaseException:
            self.abort()
            raise
        return self._completions()

    async def aresult(self) -> Completion:
        """`result()` for an event loop; being cancelled aborts the request."""
        async for _ in self:
            pass
        return self._completions()[0]

    def _take(self, chunk: Chunk) -> Chunk:
        if self._filters is not None:
            chunk = self._filtered(chunk, self._filters)
        self._answers[chunk.index].take(chunk)
        if chunk.error is not None:
            self._error = chunk.error
            raise _fresh(chunk.error) from None
        return chunk

    def _filtered(self, chunk: Chunk, filters: list[AnswerFilters]) -> Chunk:
        chunk = filters[chunk.index].apply(chunk)
        is_over = all(
            each.is_stopped or answer.last is not None for each, answer in zip(filters, self._answers, strict=True)
        )
        # The engine goes on for as long as one of the answers does: it knows requests, not their parts.
        if is_over and chunk.finish_reason is None:
            self._abort(self.request_id)
        return chunk

    def _completions(self) -> list[Completion]:
        if self._error is not None:
            raise _fresh(self._error) from None
        return [self._completion(index, answer) for index, answer in enumerate(self._answers)]

    def _completion(self, index: int, answer: _Partial) -> Completion:
        last = answer.last
        # It is finished, and an answer that ended without an error says how.
        assert last is not None and last.finish_reason is not None and last.usage is not None
        usage = last.usage
        return Completion(
            text="".join(answer.text),
            token_ids=tuple(answer.token_ids),
            finish_reason=last.finish_reason,
            stop_reason=last.stop_reason,
            num_prompt_tokens=usage.num_prompt_tokens,
            num_cached_tokens=usage.num_cached_tokens,
            timings=Timings.from_usage(usage),
            logprobs=tuple(answer.logprobs),
            prompt_logprobs=answer.prompt_logprobs,
            seed=self.seed,
            index=index,
        )


def _fresh(error: WorkbenchError) -> WorkbenchError:
    """A new exception with no traceback: the engine's frames must not be kept alive by the caller."""
    return copy.copy(error)
