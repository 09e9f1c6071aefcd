"""Text completions: what a request asks of the engine, and the engine's chunks as one answer or as a stream."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

from workbench.engine import Chunk, TokenLogprobs
from workbench.server.event_stream import event
from workbench.server.protocol.completions import (
    Completion,
    CompletionChoice,
    CompletionChunk,
    CompletionLogprobs,
    CompletionRequest,
)
from workbench.server.protocol.usage import Usage
from workbench.server.replies.answer import AnswerPart, AnswerReader, FinishWord
from workbench.server.replies.padding import padding_for
from workbench.server.served_model import ServedModel
from workbench.server.serving import Job, Serving
from workbench.server.text_offsets import TextOffsets
from workbench.server.token_logprobs import completion_logprobs

__all__ = ["CompletionReply", "completion_job"]

_DEFAULT_MAX_TOKENS = 16


def completion_job(body: CompletionRequest, model: ServedModel) -> Job:
    """The engine's side of the request."""
    num_made = max(body.n or 1, body.best_of or 1)
    wants_logprobs = body.logprobs is not None or num_made > (body.n or 1)
    params = body.sampling(
        n=num_made,
        max_tokens=_DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens,
        logprobs=wants_logprobs,
        top_logprobs=body.logprobs or 0,
        prompt_logprobs=_num_prompt_logprobs(body),
    )
    prompts = body.prompts
    return Job(
        lambda: [model.encode_text(p) if isinstance(p, str) else p for p in prompts],
        params,
        "prompt",
        body.structure_param,
    )


def _num_prompt_logprobs(body: CompletionRequest) -> int | None:
    if not body.echo:
        return None
    # Nothing generated means that the prompt is scored, and the engine takes it by that.
    return 0 if body.logprobs is None and body.max_tokens == 0 else body.logprobs


@dataclass
class _Answer:
    """All that has come of one answer."""

    reader: AnswerReader
    text: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    finish_reason: FinishWord | None = None

    def add(self, chunk: Chunk) -> None:
        part = self.reader.read(chunk)
        self.text.append(part.text)
        self.logprobs.extend(part.logprobs)
        self.prompt_logprobs = chunk.prompt_logprobs or self.prompt_logprobs
        self.finish_reason = part.finish_reason

    @property
    def mean_logprob(self) -> float:
        """What the best of several answers is chosen by."""
        if not self.logprobs:
            return -math.inf
        return sum(entry.logprob for entry in self.logprobs) / len(self.logprobs)


class CompletionReply:
    """The continuations of one request's prompts."""

    def __init__(self, body: CompletionRequest, serving: Serving) -> None:
        self._body = body
        self._serving = serving
        self._tokens = serving.model.tokens
        self._n = body.n or 1
        self._id = f"cmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())

    async def whole(self) -> Completion:
        """All answers, once they have ended."""
        num_made = self._serving.job.params.n
        answers = [[_Answer(self._reader()) for _ in range(num_made)] for _ in self._serving.prompts]
        async for prompt, chunk in self._serving:
            answers[prompt][chunk.index].add(chunk)
        choices = []
        for prompt, made in enumerate(answers):
            best = sorted(made, key=lambda answer: answer.mean_logprob, reverse=True) if num_made > self._n else made
            choices += [self._choice(prompt, i, answer) for i, answer in enumerate(best[: self._n])]
        return Completion(
            id=self._id,
            created=self._created,
            model=self._serving.model.model_id,
            choices=choices,
            usage=self._usage(),
            system_fingerprint=self._serving.model.fingerprint,
        )

    async def events(self) -> AsyncIterator[bytes]:
        """The answers piece by piece; with `echo` each begins with its prompt."""
        readers = {(p, i): self._reader() for p in range(len(self._serving.prompts)) for i in range(self._n)}
        offsets = {place: self._offsets() for place in readers}
        begun = set()
        async for prompt, chunk in self._serving:
            place = (prompt, chunk.index)
            part = readers[place].read(chunk)
            is_first = bool(self._body.echo) and place not in begun
            if part.is_empty and not is_first:
                continue
            begun.add(place)
            piece = self._piece(prompt, part, chunk.prompt_logprobs, offsets[place], echo=is_first)
            piece.index = prompt * self._n + chunk.index
            yield event(self._chunk([piece]))
        if self._body.wants_usage:
            yield event(self._chunk([], self._usage()))

    def _reader(self) -> AnswerReader:
        return AnswerReader(self._serving.model, self._serving.job.params)

    def _offsets(self) -> TextOffsets:
        is_silent = self._serving.job.params.skip_special_tokens
        return TextOffsets(self._tokens, self._tokens.special_ids if is_silent else frozenset())

    def _choice(self, prompt: int, index: int, answer: _Answer) -> CompletionChoice:
        part = AnswerPart("".join(answer.text), (), tuple(answer.logprobs), answer.finish_reason)
        choice = self._piece(prompt, part, answer.prompt_logprobs, self._offsets(), echo=bool(self._body.echo))
        choice.index = prompt * self._n + index
        return choice

    def _piece(
        self,
        prompt: int,
        part: AnswerPart,
        prompt_logprobs: Iterable[TokenLogprobs | None] | None,
        offsets: TextOffsets,
        *,
        echo: bool,
    ) -> CompletionChoice:
        text = part.text
        entries: list[TokenLogprobs | int] = []
        begins: list[int] = []
        # No functions are offered here.
        assert part.finish_reason != "tool_calls"
        if echo:
            ids = self._serving.prompts[prompt]
            echoed = self._echoed(prompt)
            text = echoed + text
            known = prompt_logprobs or [None] * len(ids)
            entries = [i if entry is None else entry for i, entry in zip(ids, known, strict=True)]
            begins = offsets.of_prompt(ids, echoed)
        entries += part.logprobs
        begins += offsets.of_answer(entry.token_id for entry in part.logprobs)
        return CompletionChoice(
            index=0, text=text, logprobs=self._logprobs(entries, begins), finish_reason=part.finish_reason
        )

    def _echoed(self, prompt: int) -> str:
        given = self._body.prompts[prompt]
        return given if isinstance(given, str) else self._serving.model.llm.tokenizer.decode(given, False)

    def _logprobs(self, entries: list[TokenLogprobs | int], begins: list[int]) -> CompletionLogprobs | None:
        if self._body.logprobs is None:
            return None
        return completion_logprobs(entries, self._tokens, with_top=self._body.logprobs > 0, offsets=begins)

    def _chunk(self, choices: list[CompletionChoice], usage: Usage | None = None) -> CompletionChunk:
        chunk = CompletionChunk(
            id=self._id,
            created=self._created,
            model=self._serving.model.model_id,
            choices=choices,
            usage=usage,
            system_fingerprint=self._serving.model.fingerprint,
        )
        if self._body.wants_padding:
            chunk.obfuscation = padding_for(sum(len(choice.text or "") for choice in choices))
        return chunk

    def _usage(self) -> Usage:
        serving = self._serving
        return Usage.of(serving.num_prompt_tokens, serving.num_generated_tokens, serving.num_cached_tokens)
