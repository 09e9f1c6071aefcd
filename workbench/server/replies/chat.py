"""Chat completions: what a request asks of the engine, and the engine's chunks as one answer or as a stream."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from workbench.engine import StructureSpec, TokenLogprobs
from workbench.server.chat_messages import Conversation
from workbench.server.errors import invalid
from workbench.server.event_stream import event
from workbench.server.protocol.chat import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatRequest,
    Delta,
    FunctionDelta,
    ReplyMessage,
    ToolCallDelta,
)
from workbench.server.protocol.tools import FunctionCall, ToolCallReply
from workbench.server.protocol.usage import Usage
from workbench.server.replies.answer import AnswerPart, AnswerReader, FinishWord
from workbench.server.replies.padding import padding_for
from workbench.server.served_model import ServedModel
from workbench.server.serving import Job, Serving
from workbench.server.token_logprobs import chat_logprobs
from workbench.server.tools import ToolCall, ToolMode, tool_grammar

__all__ = ["ChatReply", "chat_job"]


def chat_job(body: ChatRequest, model: ServedModel) -> Job:
    """The engine's side of the request."""
    structure = body.structure
    parts: tuple[StructureSpec, ...] = ()
    if body.choice.mode is not ToolMode.NONE:
        try:
            parts = tuple(function.structure for function in body.functions)
            structure = tool_grammar(body.functions, body.choice, structure)
        except ValueError as error:
            raise invalid(str(error), param="tools") from error
    params = body.sampling(
        max_tokens=body.token_limit,
        logprobs=bool(body.logprobs),
        top_logprobs=body.top_logprobs or 0,
        structure=structure,
    )
    conversation = _conversation(body)
    structure_param = body.structure_param if body.choice.mode is ToolMode.NONE else "tools"
    return Job(lambda: [model.encode_chat(conversation)], params, "messages", structure_param, parts)


def _conversation(body: ChatRequest) -> Conversation:
    return Conversation(
        tuple(message.message() for message in body.messages),
        functions=body.functions if body.choice.mode is not ToolMode.NONE else (),
        add_generation_prompt=body.add_generation_prompt is not False,
        continue_final=bool(body.continue_final_message),
        enable_thinking=None if body.chat_template_kwargs is None else body.chat_template_kwargs.enable_thinking,
    )


@dataclass
class _Answer:
    """All that has come of one answer."""

    reader: AnswerReader
    text: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: FinishWord | None = None

    def add(self, part: AnswerPart) -> None:
        self.text.append(part.text)
        self.calls.extend(part.calls)
        self.logprobs.extend(part.logprobs)
        self.finish_reason = part.finish_reason


class ChatReply:
    """The answers to one chat request."""

    def __init__(self, body: ChatRequest, serving: Serving) -> None:
        self._body = body
        self._serving = serving
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._tools = body.choice.mode

    async def whole(self) -> ChatCompletion:
        """All answers, once they have ended."""
        answers = [_Answer(self._reader()) for _ in range(self._body.n or 1)]
        async for _, chunk in self._serving:
            answer = answers[chunk.index]
            answer.add(answer.reader.read(chunk))
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._serving.model.model_id,
            choices=[self._choice(index, answer) for index, answer in enumerate(answers)],
            usage=self._usage(),
            system_fingerprint=self._serving.model.fingerprint,
        )

    async def events(self) -> AsyncIterator[bytes]:
        """The answers piece by piece: first the role, then what comes, at the end the token counts if asked for."""
        readers = [self._reader() for _ in range(self._body.n or 1)]
        num_calls = [0] * len(readers)
        yield b"".join(self._event(index, Delta(role="assistant", content="")) for index in range(len(readers)))
        async for _, chunk in self._serving:
            index = chunk.index
            part = readers[index].read(chunk)
            if not part.is_empty:
                yield b"".join(self._part_events(index, part, num_calls[index]))
            num_calls[index] += len(part.calls)
        if self._body.wants_usage:
            yield event(self._chunk([], self._usage()))

    def _reader(self) -> AnswerReader:
        return AnswerReader(self._serving.model, self._serving.job.params, self._tools)

    def _part_events(self, index: int, part: AnswerPart, num_calls: int) -> list[bytes]:
        deltas = [Delta(content=part.text)] if part.text or part.logprobs else []
        for number, call in enumerate(part.calls, start=num_calls):
            head = FunctionDelta(name=call.name, arguments="")
            deltas.append(
                Delta(tool_calls=[ToolCallDelta(index=number, id=call.call_id, type="function", function=head)])
            )
            rest = FunctionDelta(arguments=call.arguments)
            deltas.append(Delta(tool_calls=[ToolCallDelta(index=number, function=rest)]))
        # Log-probabilities go with the text they belong to.
        events = [self._event(index, delta, part if not i else None) for i, delta in enumerate(deltas)]
        if part.finish_reason is not None:
            events.append(self._event(index, Delta(), finish_reason=part.finish_reason))
        return events

    def _event(
        self, index: int, delta: Delta, part: AnswerPart | None = None, finish_reason: FinishWord | None = None
    ) -> bytes:
        logprobs = None
        if part is not None and self._body.logprobs:
            logprobs = chat_logprobs(part.logprobs, self._serving.model.tokens)
        choice = ChatChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=finish_reason)
        return event(self._chunk([choice]))

    def _chunk(self, choices: list[ChatChunkChoice], usage: Usage | None = None) -> ChatChunk:
        chunk = ChatChunk(
            id=self._id,
            created=self._created,
            model=self._serving.model.model_id,
            choices=choices,
            usage=usage,
            system_fingerprint=self._serving.model.fingerprint,
        )
        if self._body.wants_padding:
            chunk.obfuscation = padding_for(sum(len(choice.delta.content or "") for choice in choices))
        return chunk

    def _choice(self, index: int, answer: _Answer) -> ChatChoice:
        calls = [
            ToolCallReply(id=c.call_id, function=FunctionCall(name=c.name, arguments=c.arguments)) for c in answer.calls
        ]
        text = "".join(answer.text)
        # Made of answers that have ended.
        assert answer.finish_reason is not None
        return ChatChoice(
            index=index,
            message=ReplyMessage(content=text if text or not calls else None, tool_calls=calls or None),
            logprobs=chat_logprobs(answer.logprobs, self._serving.model.tokens) if self._body.logprobs else None,
            finish_reason=answer.finish_reason,
        )

    def _usage(self) -> Usage:
        serving = self._serving
        return Usage.of(serving.num_prompt_tokens, serving.num_generated_tokens, serving.num_cached_tokens)
