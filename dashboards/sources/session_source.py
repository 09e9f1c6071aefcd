"""The engine of this process as a chat source: requests join the batch that all its surfaces share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dashboards.sources.base import ChatAsk, Messages, ReplyPiece, SourceState
from workbench.conversation import ContextUse, ReplyFigures, ScoredToken, measure_context, scored_tokens
from workbench.engine import SamplingParams
from workbench.errors import EngineStoppedError, RequestError
from workbench.server.chat_messages import ChatEncoder, ChatMessage, Conversation
from workbench.server.token_text import TokenText
from workbench.server.tools import Function, TextPiece, ToolCall, ToolCallParser, ToolChoice, ToolMode, tool_grammar
from workbench.session import Session, SessionState

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["SessionSource"]


class _Model:
    """A loaded model with what its texts need."""

    def __init__(self, llm: LlamaGPU) -> None:
        self.llm = llm
        self.chat = ChatEncoder(llm.tokenizer)
        self.tokens = TokenText(llm.tokenizer)


class SessionSource:
    """Asks whatever `session` has loaded."""

    is_remote = False

    def __init__(self, session: Session) -> None:
        self.session = session
        self._model: _Model | None = None

    def state(self) -> SourceState:
        """The session's state in words, and whether its engine still lives."""
        status = self.session.status
        if status.state is not SessionState.READY:
            return SourceState(_WORDS[status.state])
        llm = _loaded(self.session)
        if llm is None:
            return SourceState("Not ready")
        model = status.facts.model if status.facts else llm.model_name
        if not llm.is_loaded:
            return SourceState("The engine has stopped.", has_crashed=True, model=model)
        return SourceState("Ready", is_ready=True, model=model, max_context=llm.max_context)

    async def refresh(self) -> None:
        """Nothing: the session is here."""

    async def models(self) -> list[str]:
        """The loaded model."""
        state = self.state()
        return [state.model] if state.is_ready else []

    async def stream(self, ask: ChatAsk) -> AsyncIterator[ReplyPiece]:
        """The reply piece by piece; closing the iterator frees its place in the batch."""
        model = await self._current()
        ids = await asyncio.to_thread(_encode, model, ask)
        generation = await asyncio.to_thread(model.llm.submit, ids, params=_with_tools(ask))
        parser = ToolCallParser() if ask.functions else None
        try:
            yield ReplyPiece(num_prompt_tokens=len(ids))
            async for chunk in generation:
                found = _parsed(parser, chunk.text, chunk.finish_reason is not None)
                tokens = scored_tokens(chunk.logprobs, model.tokens.bytes_of) if chunk.logprobs else ()
                yield ReplyPiece(
                    text="".join(part.text for part in found if isinstance(part, TextPiece)),
                    num_tokens=len(chunk.token_ids),
                    tokens=tokens,
                    calls=tuple(part for part in found if isinstance(part, ToolCall)),
                )
        finally:
            generation.abort()
        yield ReplyPiece(figures=_figures(model.llm, generation.result()))

    async def context_use(
        self, messages: Messages, draft: str, functions: tuple[Function, ...] = (), thinking: bool | None = None
    ) -> ContextUse | None:
        """Counted with the model's own template."""
        if not self.state().is_ready:
            return None
        model = await self._current()

        def count(counted: Messages) -> int:
            conversation = Conversation(_chat_messages(counted), functions, enable_thinking=thinking)
            return len(model.chat.encode(conversation))

        return await asyncio.to_thread(measure_context, count, messages, draft, model.llm.max_context)

    async def score(self, text: str, messages: Messages = (), *, num_alternatives: int = 5) -> tuple[ScoredToken, ...]:
        """One pass over the text, nothing is generated."""
        if not text:
            raise RequestError("the text is empty: give some text to score")
        model = await self._current()
        before = model.chat.encode(Conversation(_chat_messages(messages))) if messages else []
        ids = before + model.llm.tokenizer.encode(text, add_special_tokens=not before)
        params = SamplingParams(max_tokens=0, prompt_logprobs=num_alternatives)
        completion = await model.llm.submit(ids, params=params).aresult()
        scores = completion.prompt_logprobs[len(before) :]
        return await asyncio.to_thread(scored_tokens, scores, model.tokens.bytes_of, token_ids=ids[len(before) :])

    async def close(self) -> None:
        """The session belongs to somebody else."""
        self._model = None

    async def _current(self) -> _Model:
        llm = self.session.llm
        if not llm.is_loaded:
            raise EngineStoppedError("the engine has stopped: restart it, or load the model again")
        if self._model is None or self._model.llm is not llm:
            self._model = await asyncio.to_thread(_Model, llm)
        return self._model


_WORDS = {
    SessionState.EMPTY: "No model is loaded.",
    SessionState.LOADING: "Loading",
    SessionState.UNLOADING: "Unloading",
    SessionState.FAILED: "Loading failed",
}


def _loaded(session: Session) -> LlamaGPU | None:
    try:
        return session.llm
    except EngineStoppedError:
        return None


def _encode(model: _Model, ask: ChatAsk) -> list[int]:
    if ask.prompt is not None:
        return model.llm.tokenizer.encode(ask.prompt)
    return model.chat.encode(
        Conversation(
            _chat_messages(ask.messages),
            ask.functions,
            continue_final=ask.continues,
            enable_thinking=ask.thinking,
        )
    )


def _with_tools(ask: ChatAsk) -> SamplingParams:
    """The ask's sampling, in which calls are written in a form that can be read back."""
    if not ask.functions:
        return ask.params
    # A small model that must call would go on calling until its tokens are used up.
    choice = ToolChoice(ToolMode.REQUIRED, parallel=False) if ask.must_call else ToolChoice(ToolMode.AUTO)
    try:
        grammar = tool_grammar(ask.functions, choice, ask.params.structure)
    except ValueError as error:
        raise RequestError(f"structure: {error}") from None
    return replace(ask.params, structure=grammar)


def _parsed(parser: ToolCallParser | None, text: str, is_last: bool) -> list[TextPiece | ToolCall]:
    if parser is None:
        return [TextPiece(text)]
    return parser.feed(text) + (parser.finish() if is_last else [])


def _chat_messages(messages: Messages) -> tuple[ChatMessage, ...]:
    return tuple(_chat_message(message) for message in messages)


def _chat_message(message: Mapping[str, Any]) -> ChatMessage:
    calls = tuple(
        ToolCall(call["id"], call["function"]["name"], _as_text(call["function"]["arguments"]))
        for call in message.get("tool_calls", ())
    )
    return ChatMessage(message["role"], message.get("content") or "", calls, message.get("tool_call_id"))


def _as_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _figures(llm: LlamaGPU, completion: Any) -> ReplyFigures:
    timings = completion.timings
    return ReplyFigures(
        model=llm.model_name,
        finish_reason=completion.finish_reason.value,
        num_prompt_tokens=completion.num_prompt_tokens,
        num_cached_tokens=completion.num_cached_tokens,
        num_generated_tokens=timings.num_generated_tokens,
        ttft_s=timings.ttft_s,
        total_s=timings.total_s,
        tokens_per_s=timings.decode_tokens_per_s,
        max_context=llm.max_context,
        seed=completion.seed,
    )
